"""Fails when the errors of ``ptychrome demo --json FILE`` are worse than promised, or a frame was lost."""

import json
import sys
from pathlib import Path

LIMITS = {"edge_energy_eV": 0.12, "pre_edge_ratio_eV": 0.12, "n_v_rel": 0.015, "n_eff_ratio": 0.7}
LEAST_ARI = 0.95


def main() -> int:
    """Check the file named on the command line."""
    particles = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["particles"]
    wrong = [] if particles else ["no particle was scored"]
    for name, result in particles.items():
        errors = result["errors"]
        wrong += [
            f"{name}: {key} is {errors[key]:.3g}, promised at most {limit}"
            for key, limit in LIMITS.items()
            if not errors[key] <= limit
        ]
        if not errors["cluster_ari"] >= LEAST_ARI:
            wrong.append(f"{name}: cluster_ari is {errors['cluster_ari']:.2f}, promised at least {LEAST_ARI}")
        if result["frames_lost"] or result["frames_reconstructed"] != result["frames_written"]:
            wrong.append(f"{name}: {result['frames_lost']} frames lost")
    print("\n".join(wrong) or "the demo keeps its promises")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
