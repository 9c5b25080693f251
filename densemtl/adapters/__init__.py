"""Adapters: few trained parameters that change the layers of a frozen backbone."""
