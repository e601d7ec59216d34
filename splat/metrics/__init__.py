"""How close a render is to the photograph: PSNR, SSIM, LPIPS, with one rule for masks.

Weights are w = mask / 255. PSNR is taken over masked pixels, mse = sum(w d^2) / (3 sum w). SSIM compares
(w x + (1 - w) y, y) and averages its map with the weights, so that ignored pixels count as right.
"""

from splat.metrics.lpips import LpipsMetric, lpips_metric
from splat.metrics.pixels import PSNR_CAP_DB, psnr, rounded_8bit
from splat.metrics.structure import ssim

__all__ = ["PSNR_CAP_DB", "LpipsMetric", "lpips_metric", "psnr", "rounded_8bit", "ssim"]
