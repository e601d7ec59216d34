"""What the loop itself must know, apart from its parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ResolutionSchedule:
    """Coarse to fine: start at 1/``factor`` of the picture size and halve the factor at equal intervals."""

    factor: int = 1
    until: int = 0
    """First step at full size (counted from 1)."""

    def factor_at(self, step: int) -> int:
        """Divisor of the picture's sides at ``step`` (from 1)."""
        if self.factor <= 1 or step >= self.until:
            return 1
        stages = self.factor.bit_length() - 1  # 4 -> two coarse stages: 4 then 2
        stage = min(stages - 1, (step - 1) * stages // max(self.until - 1, 1))
        return self.factor >> stage


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the step itself; step numbers count from 1."""

    steps: int
    seed: int = 0
    ssim_weight: float = 0.2
    detail_weight: float = 0.0
    """Part of the L1 weight that counts only where the frequency mask says; 0 = no such mask."""
    detail_levels: int = 20
    """Different masks over the run."""
    sh_degree: int = 3
    sh_every: int = 1000
    """Steps between two SH bands; 0 = all bands from the start."""
    background: tuple[float, float, float] | None = (0.0, 0.0, 0.0)
    """Colour behind the splats where a camera names none; None = a new random colour every view."""
    filter2d: str = "classic"
    filter3d_every: int = 0
    """Recompute the Mip 3D filter this often; 0 = no such filter."""
    resolution: ResolutionSchedule = ResolutionSchedule()
    eval_at: frozenset[int] = frozenset()
    """Steps after which held-out views are measured; the last step always is."""
    max_secs: float | None = None
    """Wall time after which the run ends cleanly; earlier parts of a resumed run count."""
    lr_scale: float = 1.0
    """Factor on all learning rates but those of opacities."""
    rates_factor: float = 1.0
    """Factor on all learning rates."""
    densify: bool = True
    """Whether the densifier refines."""
    lr_start: float = 0.0
    """Part of the learning rates' way that is gone before the first step; 1 = the last rates throughout."""
    target_psnr: float | None = None
    """Ends the run cleanly once the last visits of all training views reach this mean, dB."""

    def rate_step(self, step: int) -> float:
        """Where ``step`` stands on the way of the learning rates, 0 to ``steps``."""
        return self.lr_start * self.steps + (1 - self.lr_start) * step

    def sh_degree_at(self, step: int) -> int:
        """Highest SH band in use at ``step``: one more every ``sh_every`` steps (Kerbl et al. 2023, section 7.1)."""
        if self.sh_every <= 0:
            return self.sh_degree
        return min(self.sh_degree, step // self.sh_every)
