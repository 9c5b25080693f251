"""Boundary F-measure, for which predicted and true boundary pixels are matched within a distance.

Sources: Martin, Fowlkes and Malik, "Learning to detect natural image boundaries using local
brightness, color, and texture cues", PAMI 2004, appendix B; Arbelaez, Maire, Fowlkes and Malik,
"Contour detection and hierarchical image segmentation", PAMI 2011.

The steps for an image are non-maximum suppression (`non_max_suppression`), thresholding, thinning
(`densemtl.ops.thinning`), matching (`matching`) and counting (`counts`). The counts are summed over
images and converted to scores (`precision_recall`).
"""
