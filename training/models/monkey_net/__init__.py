"""Monkey-Net (Siarohin et al., CVPR 2019), the older baseline: motion of zero order."""
