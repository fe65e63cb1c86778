"""Frames that come and go while they are made: over a network, to a page, to other programs."""
