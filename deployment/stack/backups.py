"""make db-backup and make db-restore, with dumps that are whole, cut off, and put back only half."""

import signal
import subprocess

from engine import TOP, Failed
from tour import expect, until


def _started(stack):
    """Since when each container of a service runs."""
    return {container["Name"]: container["State"]["StartedAt"] for _, container in stack.services()}


def _column(stack, database, sql):
    """What the database answers to a question of one column."""
    return stack.compose("exec", "-T", "postgres", "psql", "-U", "emailclient", "-d", database, "-qAtc", sql).split()


def _databases(stack):
    """The database of the product, and those of a restore under way."""
    return _column(stack, "postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'emailclient%' ORDER BY 1")


def _tenants(stack):
    return _column(stack, "emailclient_db", "SELECT slug FROM tenants")


def check(stack, client, account, log_in):
    """A restore brings back what was before the dump and nothing that came later; gives back the size of the dump."""
    messages = f"/api/accounts/{account}/messages?limit=200"
    ids = {message["id"] for message in client.call("GET", messages)["data"]}
    dump, broken = stack.secrets / "backup.dump", stack.secrets / "broken.dump"
    stack.database("backup", dump)
    stack.ctl("tenant", "create", "--slug", "later")

    broken.write_bytes(dump.read_bytes()[: dump.stat().st_size // 2])
    before = _started(stack)
    try:
        stack.database("restore", broken)
    except Failed as error:
        expect("nothing was changed" in str(error), f"half a dump was refused without a word of what it did: {error}")
    else:
        raise Failed("half a dump was restored")
    expect(_started(stack) == before, "half a dump was judged after something had been stopped")
    client.call("GET", messages)
    expect(_databases(stack) == ["emailclient_db"], f"half a dump left behind: {_databases(stack)}")

    # Broken off when the databases have changed their names.
    command = [str(TOP / "deployment/stack/database.sh"), "restore", str(dump)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=TOP, env=stack.env, text=True, **pipes) as restore:
        until("the exchange of the databases", 120, lambda: "emailclient_db_old" in _databases(stack))
        restore.send_signal(signal.SIGTERM)
        said = restore.communicate(timeout=120)[1]
    taken_back = restore.returncode == 130 and "put back" in said
    expect(taken_back, f"broken off, the restore ended with {restore.returncode}: {said}")
    expect(_databases(stack) == ["emailclient_db"], f"a restore that was broken off left behind: {_databases(stack)}")
    stack.wait_healthy()
    expect("later" in _tenants(stack), "a restore that was broken off is not taken back")

    stack.database("restore", dump)
    stack.wait_healthy()
    restored = {message["id"] for message in log_in().call("GET", messages)["data"]}
    if not ids <= restored:
        raise Failed(f"{len(ids - restored)} of {len(ids)} messages are not in the restored database")
    expect("later" not in _tenants(stack), "what came after the dump is there after its restore")
    return dump.stat().st_size
