"""How much is worked on at a time, so that memory is bounded whatever the size of the input.

Numbers are of float32 values unless said otherwise. Results do not depend on them.
"""

CLASSES = 128
"""Classes whose category scores or losses are computed at a time. COCO's 80 are one piece; with the
more than 1000 of LVIS, pieces halve the peak of memory."""

MASK_LOSS_PIXELS = 2**25
"""Pixels of soft masks in one piece of the mask loss. At stride 4 all masks are one piece; at full
resolution they would need gigabytes, and are made anew, piece by piece, in the backward pass."""

MASK_PIXELS = {"cpu": 2**22, "cuda": 2**26}
"""Pixels of soft masks in flight after the network: 16 MiB fits a CPU's outer cache, a GPU wants
larger launches."""

FIXED_PIXELS = 2**27
"""Pixels of soft masks of all candidates of some images, where nothing is visited in chunks."""

MATTE_PIXELS = 2**25
"""Pixels of mattes that are brought to the output's size at a time: 128 MiB."""

SEMANTIC_VALUES = 2**27
"""Values of the largest tensor of semantic logits (C, height, width) that is kept: half a gigabyte,
which is 53 classes of 1600x1600 pixels. Larger ones are reduced to labels band by band."""

BAND_PIXELS = 2**21
"""Pixels of an image that an effect works on at a time, three channels each."""

RANKED_LOGITS = 2**21
"""Logits of cells and classes that the Rank & Sort loss compares at a time: those of COCO's classes
in six images."""

COMPARED_PAIRS = 2**22
"""Pairs of positives that the Rank & Sort loss compares at a time; those of 2048 positives."""
