"""What goes out: videos, DICOM, MetaImage, pictures; whole or not at all."""
