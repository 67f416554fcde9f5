"""A pool of Beam's SDK workers on an address of its own; see :func:`cluster.start_pools`.

Beam's ``worker_pool_main`` is the same, but always listens on all addresses of the machine.
"""

import sys
import time

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from apache_beam.utils.thread_pool_executor import shared_unbounded_instance


def main(address: str) -> None:
    """Serve until killed; SDK workers are processes of their own, as in ``worker_pool_main``."""
    server = grpc.server(shared_unbounded_instance())
    pool = BeamFnExternalWorkerPoolServicer(use_process=True)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    server.add_insecure_port(address)
    server.start()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1])
