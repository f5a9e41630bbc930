"""From knobs to priced candidates: backbones, bits, base networks. Nothing here is a trial."""
