"""A Ray of its own for a test, in a process of its own: `python ray_nodes.py CPUS BYTES` says its address, and ends
with its standard input."""

import json
import sys


def main() -> None:
    """Start a node, say where it is, wait."""
    from ray.cluster_utils import Cluster

    processors, store = map(int, sys.argv[1:])
    head = {"num_cpus": processors, "object_store_memory": store, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    print(json.dumps(cluster.address), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
