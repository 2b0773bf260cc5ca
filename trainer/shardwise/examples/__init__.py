"""Examples on real data: each one short file, beside a manifest in manifests/examples."""
