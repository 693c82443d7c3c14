"""On one GPU, in at most 8 minutes: whether what is fast is right, and how fast it is, beside what others reached.

    python benchmarks/gpu.py [--only checks train images edit encode lora losses sweep] [--out gpu.json] [--profile]

Needs no data: the weights are random, of Stable Diffusion's size, and images and latents are generated. The checks come
first (`gpu_checks.py`). Then each row runs what users run: the trainer, with everything that it does in a step (moving
average and clipping too), from the latent cache and from JPEGs; the frozen encoders; whole edits, 20 guided steps at
512 px; adapters. Each row is printed beside this project's figure before, its published peer and the card's peaks, by
its data sheet and as measured in this run (`gpu_report.py`), and saved to --out at once. Training at the first batch
size has compiled blocks; the other batch sizes (sweep) and adapters have not, because compiling for each takes minutes.
MFU counts the operations that a step needs, without those that it repeats. What does not fit in --seconds is skipped,
and the output says so. With --profile, the kernels of a training step are printed too.

Runs without ray, mlflow, fiftyone and polars. Without a GPU, a tiny size runs on the CPU as a check of the script.
"""

if __name__ == "__main__":  # the processes that draw samples import this module, and need nothing of it
    from gpu_sections import main

    main(__doc__)
