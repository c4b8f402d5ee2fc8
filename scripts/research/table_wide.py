"""Print the results of report_wide.sh as the table of docs/beyond-the-paper.md.

    python scripts/research/table_wide.py out/wide [STRENGTH]

The two values of p are for SSIM and for structure distance, each against sdedit.
"""

import json
import sys
from pathlib import Path

DIRECTIONS = ("flat-to-3d", "3d-to-flat", "flat-to-ink", "ink-to-3d")
#: Metric -> its heading and its decimals.
METRICS = {
    "ssim_truth": ("SSIM", 3),
    "psnr_truth": ("PSNR, dB", 2),
    "structure_distance_truth": ("structure distance", 4),
    "clip_text": ("text similarity", 3),
    "style_accuracy": ("style accuracy", 3),
}
TESTED = ("ssim_truth", "structure_distance_truth")


def main() -> None:
    out, strength = Path(sys.argv[1]), (*sys.argv[2:], "0.8")[0]
    heads = ["direction, icons", "recipe", *(head for head, _ in METRICS.values()), "p"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for direction in DIRECTIONS:
        file = out / direction / strength / "evaluation.json"
        if not file.exists():
            continue
        for recipe, found in json.loads(file.read_text())["variants"].items():
            means = (f"{found['metrics'][name]['mean']:.{n}f}" for name, (_, n) in METRICS.items())
            tests = [found["against_base"][name]["p"] for name in TESTED if found["against_base"]]
            p = ", ".join("< 0.0001" if value < 1e-4 else f"{value:.4f}" for value in tests)
            told = f"{direction.replace('-', ' ')}, {found['pictures']}"
            lines.append("| " + " | ".join([told, f"`{recipe}`", *means, p]) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
