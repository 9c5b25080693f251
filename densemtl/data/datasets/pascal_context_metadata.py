"""Classes and body parts of PASCAL-Context, and the labels that have valid distilled normals.

Sources: Everingham et al. 2010 (21 classes); Mottaghi et al. 2014 (459 labels); Chen et al. 2014
(parts, grouped as by Xia et al. 2017); Maninis et al. 2019 (which labels have valid normals).
"""

from __future__ import annotations

_CLASS_NAMES = """
background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike
person pottedplant sheep sofa train tvmonitor
"""

CLASSES = tuple(_CLASS_NAMES.split())

EDGE_MAX_DISTANCE = 0.0075
"""Maximum distance of matched edge pixels, as a fraction of the image diagonal."""

PERSON_CLASS = 15
"""Class whose objects have body parts."""

PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")

_PART_TO_NAMES = {
    1: "head hair leye reye lear rear lebrow rebrow nose mouth",
    2: "torso neck",
    3: "luarm ruarm",
    4: "llarm rlarm lhand rhand",
    5: "luleg ruleg",
    6: "llleg rlleg lfoot rfoot",
}

NAME_TO_PART = {name: part for part, names in _PART_TO_NAMES.items() for name in names.split()}
"""Part 1..6 of each of the 24 part names in the annotations."""

_LABELS_WITH_NORMALS = """
    3 4 6 9 10 11 13 15 17 18 22 23 29 30 33 34 36 37 38 39 41 43 46 49 50 51 53 55 56 59 61 62 65
    66 68 69 72 73 78 83 84 85 87 88 95 96 101 104 105 107 111 113 115 122 124 135 141 142 143 146
    150 154 157 158 159 165 172 174 181 183 184 191 193 195 197 199 202 213 215 216 219 220 223 225
    228 230 232 233 238 239 242 243 246 250 251 252 255 260 261 263 269 272 273 275 281 283 284 285
    286 287 288 290 291 292 293 295 304 307 309 310 314 315 319 323 329 330 331 336 342 345 349 350
    351 352 355 357 368 370 371 374 379 380 383 384 397 401 403 405 407 408 411 412 413 414 417 419
    421 423 427 429 430 432 440 441 442 443 444 446 454 457
"""

LABELS_WITH_NORMALS = tuple(map(int, _LABELS_WITH_NORMALS.split()))
"""Labels with valid normals: those of the 459 labels whose name is also among the 894 labels of
NYUD-v2, except `unknown`, and tvmonitor. The network that the normals are distilled from was
trained on these only."""
