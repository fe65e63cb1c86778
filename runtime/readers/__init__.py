"""What comes in becomes frames: pictures, clips, DICOM, MetaImage, NRRD."""
