"""The boundary F-measure: predicted against true boundaries, pixels matched within a distance.

Martin, Fowlkes and Malik, "Learning to detect natural image boundaries", PAMI 2004, appendix B;
Arbelaez, Maire, Fowlkes and Malik, "Contour detection and hierarchical segmentation", PAMI 2011.
An image's way: `nms` -> binarise -> `thinning` -> `matching` -> `counts` -> sums -> `curve`.
"""
