"""Labels that other tools made: read, put into ``keypoints.csv``, checked. Needs no torch.

A file per format turns a file into `marks.Marks`; `importing.py` makes rows of the table of them.
"""
