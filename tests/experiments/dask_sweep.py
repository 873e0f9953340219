"""Run by `test_sweep_workers`: a sweep on two Dask workers, and again with one of them killed in the middle."""

import json
import os
import signal
import sys
from pathlib import Path

sys.path[:0] = ["tests"]


def main(model, folder, out):
    from distributed import Client, LocalCluster
    from tiny_sweep import SETTINGS

    import lrc_tl as lrc

    relations = list(lrc.load_relations(folder)[0].values())
    killed = []

    def kill(record):
        if not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, Client(cluster) as client:
        executor = client.get_executor()
        lrc.run_sweep(model, relations, settings=SETTINGS, executor=executor, out=out / "plain")
        lrc.run_sweep(model, relations, settings=SETTINGS, executor=executor, out=out / "killed", on_record=kill)
    print(json.dumps({"killed": bool(killed)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
