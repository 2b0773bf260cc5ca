"""Every method of every kind of step, as spec.compression has it."""

from __future__ import annotations

TUNE = {"steps": 12, "learningRate": "0.05"}
STEPS = {
    "magnitude": [{"prune": {"sparsity": "0.8"}, "fineTune": TUNE}],
    "taylor": [{"prune": {"method": "Taylor", "sparsity": "0.8"}}],
    "fisher": [{"prune": {"method": "Fisher", "sparsity": "0.8", "scope": "Uniform"}}],
    "obs": [{"prune": {"method": "OBS", "sparsity": "0.8"}}],
    "2:4 magnitude": [{"prune": {"pattern": "TwoOfFour"}, "fineTune": TUNE}],
    "2:4 obs": [{"prune": {"method": "OBS", "pattern": "TwoOfFour"}}],
    "gradual": [
        {"prune": {"sparsity": "0.8", "schedule": {"everySteps": 3}}, "fineTune": TUNE},
    ],
    "gradual taylor": [
        {
            "prune": {"method": "Taylor", "sparsity": "0.8", "schedule": {"everySteps": 3}},
            "fineTune": TUNE,
        },
    ],
    "channels": [{"prune": {"pattern": "Channels", "sparsity": "0.5"}, "fineTune": TUNE}],
    "int8": [{"quantize": {}}],
    "int3": [{"quantize": {"bits": 3, "groupSize": 8}}],
    "gptq": [{"quantize": {"method": "GPTQ", "bits": 2, "groupSize": 8}}],
    "dynamic": [{"quantize": {"activations": "Dynamic"}}],
    "aware": [{"quantize": {"bits": 2}, "fineTune": TUNE}],
    "aware, inputs too": [
        {"quantize": {"activations": "Dynamic"}, "fineTune": TUNE},
    ],
    "distill": [{"distill": {"student": {"parameters": {"width": 8}}}, "fineTune": TUNE}],
    "distill, not cached": [
        {"distill": {"teacherOutputs": "EveryStep", "samples": 90}, "fineTune": TUNE}
    ],
    "distill, features": [
        {"distill": {"features": {"student": "3", "teacher": "3"}}, "fineTune": TUNE}
    ],
    "all": [
        {"prune": {"method": "OBS", "sparsity": "0.5"}, "fineTune": TUNE},
        {"distill": {}, "fineTune": TUNE},
        {"quantize": {"method": "GPTQ", "bits": 4}},
    ],
}

STATIC = {
    "static": [{"quantize": {"activations": "Static"}}],
    "static, aware": [{"quantize": {"activations": "Static"}, "fineTune": TUNE}],
    "static after all": [
        {"prune": {"pattern": "Channels", "sparsity": "0.5"}, "fineTune": TUNE},
        {"prune": {"method": "OBS", "sparsity": "0.5"}},
        {"quantize": {"activations": "Static"}},
    ],
}
"""Apart: torch.export cannot be called in several threads at once."""
