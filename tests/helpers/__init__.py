"""What several tests share: tiny experiments, fake data sets, processes of two ranks."""
