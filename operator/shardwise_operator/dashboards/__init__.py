"""The Grafana dashboards: fleet (all jobs), job (one of them), operator.

`python -m shardwise_operator.dashboards` writes their JSON into the chart, and docs/metrics.md.
Never run by the product.
"""
