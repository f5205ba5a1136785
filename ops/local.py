"""The topology of docker-compose.yml as plain processes on one machine: PostgreSQL, Redis, workers, chores, beat.

ops/local up [--workers N] [worker options]     start what is not running; data in .local/, logs in .local/*.log
ops/local env                                   print what other commands need: eval "$(ops/local env)"
ops/local status | down
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".local"
STATE = FOLDER / "state.json"
FOLDERS = ["/usr/local/bin", "/usr/bin", *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
READY_S = 60.0
LOADED_S = 600.0
"""A large model takes minutes to load."""
STOP_S = 600.0
"""A worker that is told to stop finishes its unit, which may take minutes on a CPU."""
DATABASE, USER = "exhibit", "exhibit"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start everything")
    up.add_argument("--workers", type=int, default=1, metavar="N", help="processes that answer (default: 1)")
    up.set_defaults(act=start_all)
    for name, act in (("status", show), ("env", print_environment), ("down", stop_all)):
        commands.add_parser(name).set_defaults(act=act)
    arguments, worker_options = parser.parse_known_args()
    if worker_options and arguments.act is not start_all:
        parser.error(f"unknown: {' '.join(worker_options)}")
    arguments.worker_options = worker_options
    return int(arguments.act(arguments))


def start_all(arguments: argparse.Namespace) -> int:
    state = load()
    FOLDER.mkdir(exist_ok=True)
    running = {name: process for name, process in state.get("processes", {}).items() if alive(process)}
    ports = state.get("ports") or {"postgres": free_port(), "redis": free_port()}
    save({"ports": ports, "processes": running})
    if "redis" not in running:
        start_redis(ports["redis"])
    if "postgres" not in running:
        start_postgres(ports["postgres"])
    exhibit("db", "upgrade")
    worker = [sys.executable, "-m", "pipeline.cli", "worker", "--queue"]
    options = [option for option in arguments.worker_options if option != "--"]
    commands = {"chores": [*worker, "chores"], "beat": [sys.executable, "-m", "pipeline.cli", "beat"]}
    commands |= {f"worker-{number}": [*worker, "answer", *options] for number in range(1, arguments.workers + 1)}
    started_now = {name: start(name, command) for name, command in commands.items() if name not in running}
    for name, logged_before in started_now.items():
        if name != "beat":
            wait_for(lambda n=name, b=logged_before: serves(n, b), name, LOADED_S)
    print(
        "ops/local: everything is running. In this shell, once:\n"
        '  eval "$(ops/local env)"\n'
        "then, for example:\n"
        '  .venv/bin/exhibit submit FOLDER -q "What is the total due?"\n'
        "  .venv/bin/exhibit status BATCH --watch\n"
        "Logs: .local/*.log. Stop: ops/local down",
        file=sys.stderr,
    )
    return 0


def serves(name: str, logged_before: int) -> bool:
    """Whether a worker has said since it was started that it takes wake-ups."""
    log = (FOLDER / f"{name}.log").read_bytes()[logged_before:]
    if not alive(load()["processes"][name]):
        raise SystemExit(f"ops/local: {name} ended; the end of .local/{name}.log:\n{log.decode(errors='replace')[-1000:]}")
    return b'"worker started"' in log


def start_redis(port: int) -> None:
    data = FOLDER / "redis"
    data.mkdir(exist_ok=True)
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(data)]
    durable = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"]
    start("redis", [program("redis-server"), *options, *durable])
    wait_for(lambda: listens(port), "redis")
    if not alive(load()["processes"]["redis"]):
        raise SystemExit(f"ops/local: something else listens on port {port}; see .local/redis.log")


def start_postgres(port: int) -> None:
    # It refuses to run as root, and its data may lie where its own user may not look.
    user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"] if os.geteuid() == 0 else []
    data = Path("/var/lib/postgresql/exhibit-local") if user else FOLDER / "postgres"
    if not (data / "PG_VERSION").exists():
        data.mkdir(parents=True, exist_ok=True)
        if user:
            os.chown(data, pwd.getpwnam("postgres").pw_uid, pwd.getpwnam("postgres").pw_gid)
        create = [program("initdb"), "-D", str(data), "--auth", "trust", "--username", USER, "--encoding", "UTF8"]
        subprocess.run([*user, *create, "--locale", "C"], check=True, capture_output=True, cwd="/")
    options = ["-D", str(data), "-k", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
    start("postgres", [*user, program("postgres"), *options], cwd="/")
    wait_for(lambda: database_ready(port), "postgres")


def database_ready(port: int) -> bool:
    import psycopg

    try:
        server = psycopg.connect(
            f"host=127.0.0.1 port={port} user={USER} dbname=postgres", connect_timeout=2, autocommit=True
        )
    except psycopg.OperationalError:
        return False
    with server:
        if server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
            server.execute(f"CREATE DATABASE {DATABASE}".encode())
    return True


def environment() -> dict[str, str]:
    ports = load()["ports"]
    return {
        "EXHIBIT_DB_URL": f"postgresql://{USER}@127.0.0.1:{ports['postgres']}/{DATABASE}",
        "EXHIBIT_REDIS_URL": f"redis://127.0.0.1:{ports['redis']}/0",
    }


def exhibit(*arguments: str) -> None:
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    subprocess.run(command, check=True, env={**os.environ, **environment()}, cwd=ROOT)


def start(name: str, command: list[str], cwd: Path | str = ROOT) -> int:
    """Start a process that outlives us, and remember it; return how long its log was before."""
    with (FOLDER / f"{name}.log").open("ab") as log:
        logged_before = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=cwd,
            env={**os.environ, **environment()},
            start_new_session=True,
        )
    state = load()
    state["processes"][name] = [process.pid, started(process.pid)]
    save(state)
    return logged_before


def stop_all(_: argparse.Namespace) -> int:
    """Workers first, so that they can give back what they hold; then the servers."""
    state = load()
    for group in (("beat", "worker", "chores"), ("redis", "postgres")):
        members = {name: process for name, process in state.get("processes", {}).items() if name.startswith(group)}
        for name, process in members.items():
            if alive(process):
                # PostgreSQL: SIGINT does not wait for clients.
                os.kill(process[0], signal.SIGINT if name == "postgres" else signal.SIGTERM)
        wait_for(lambda members=members: not any(map(alive, members.values())), " ".join(members), STOP_S)
    save({**state, "processes": {}})
    return 0


def show(_: argparse.Namespace) -> int:
    processes = load().get("processes", {})
    for name, process in processes.items():
        print(f"{name}\t{process[0]}\t{'running' if alive(process) else 'DEAD: see .local/' + name + '.log'}")
    return 0 if processes and all(map(alive, processes.values())) else 1


def print_environment(_: argparse.Namespace) -> int:
    if "ports" not in load():
        print("ops/local: nothing was started yet; ops/local up", file=sys.stderr)
        return 1
    for name, value in environment().items():
        print(f"export {name}={value}")
    return 0


def load() -> dict:
    return json.loads(STATE.read_text()) if STATE.exists() else {}


def save(state: dict) -> None:
    STATE.write_text(json.dumps(state, indent=2) + "\n")


def started(pid: int) -> str:
    """When a process started, in clock ticks after boot: tells a reused number from the same process."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    return ""


def alive(process: list) -> bool:
    return started(process[0]) == process[1] != ""


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(FOLDERS))
    if found is None:
        raise SystemExit(f"ops/local: {name} is not installed; apt-get install postgresql redis-server")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_for(condition: Callable[[], bool], name: str, seconds: float = READY_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"ops/local: {name} is not ready after {seconds:g} s; see .local/*.log")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
