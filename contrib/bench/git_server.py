"""Serves repositories over smart HTTP, for measurements: `git http-backend` behind a small HTTP/1.1
server that keeps connections.

    git_server.py ROOT [CERTIFICATE KEY]

Listens on one free port of 127.0.0.1 to 127.0.0.4, which clients count as four hosts, and prints the
port. Speaks TLS if given a certificate. `GET /_stats` answers with JSON: the connections, requests,
bytes of answers, and seconds of CPU of the server and its backends so far. `/repeat/NAME/REPOSITORY`
is another URL of REPOSITORY for each NAME, and repeats the backend's first answer to each question,
for farms whose polls a backend each would make too slow. `GET /_latency/SECONDS`
delays each later answer by as much. Exits when its standard input closes.
"""

import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time

HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]
ROOT = sys.argv[1]
BACKEND = os.path.join(subprocess.check_output(["git", "--exec-path"], text=True).strip(), "git-http-backend")

# The variables that a web server passes to a CGI program (RFC 3875).
FIELDS = {
    "content-type": "CONTENT_TYPE",
    "content-encoding": "HTTP_CONTENT_ENCODING",
    "accept-encoding": "HTTP_ACCEPT_ENCODING",
    "git-protocol": "GIT_PROTOCOL",
}
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "GIT_PROJECT_ROOT": ROOT,
    "GIT_HTTP_EXPORT_ALL": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
}

lock = threading.Lock()
answers = {}
counts = {"connections": 0, "requests": 0, "bytes": 0}
latency = 0


def stats():
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    with lock:
        return dict(counts, cpu=sum(usage.ru_utime + usage.ru_stime for usage in usages))


def read_body(stream, fields):
    if fields.get("transfer-encoding", "").lower() != "chunked":
        return stream.read(int(fields.get("content-length", 0)))
    body = b""
    while size := int(stream.readline().split(b";")[0], 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return body


def backend(method, target, fields, body):
    """Returns the backend's status, header lines and body."""
    path, _, query = target.partition("?")
    environment = dict(ENVIRONMENT, REQUEST_METHOD=method, PATH_INFO=path, QUERY_STRING=query, CONTENT_LENGTH=str(len(body)))
    environment.update((variable, fields[field]) for field, variable in FIELDS.items() if field in fields)
    process = subprocess.Popen([BACKEND], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    head, _, content = process.communicate(body)[0].partition(b"\r\n\r\n")
    status, lines = b"200 OK", []
    for line in head.split(b"\r\n"):
        if line.startswith(b"Status: "):
            status = line[8:]
        else:
            lines.append(line)
    return status, lines, content


def repeat(method, target, fields, body):
    target = "/" + target.split("/", 3)[3]
    question = (method, target, fields.get("git-protocol"), body)
    if question not in answers:
        answers[question] = backend(method, target, fields, body)
    status, lines, content = answers[question]
    return status, list(lines), content


def serve(connection):
    global latency
    with connection, connection.makefile("rb") as stream:
        while line := stream.readline():
            method, target, _ = line.decode().split()
            fields = {}
            while (line := stream.readline().decode().rstrip("\r\n")):
                name, _, value = line.partition(":")
                fields[name.lower()] = value.strip()
            body = read_body(stream, fields)
            if target == "/_stats":
                status, lines, content = b"200 OK", [], json.dumps(stats()).encode()
            elif target.startswith("/_latency/"):
                latency = float(target.rpartition("/")[2])
                status, lines, content = b"200 OK", [], b""
            else:
                answer = repeat if target.startswith("/repeat/") else backend
                time.sleep(latency)
                status, lines, content = answer(method, target, fields, body)
                with lock:
                    counts["requests"] += 1
                    counts["bytes"] += len(content)
            lines.append(b"Content-Length: %d" % len(content))
            connection.sendall(b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + content)


def serve_quietly(connection, tls):
    # A client that hangs up is not an error.
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        serve(tls.wrap_socket(connection, server_side=True) if tls else connection)
    except OSError:
        connection.close()


def accept(listener, tls):
    while True:
        connection, _ = listener.accept()
        with lock:
            counts["connections"] += 1
        threading.Thread(target=serve_quietly, args=(connection, tls), daemon=True).start()


def listen():
    """Returns listeners on the same port of all hosts."""
    while True:
        listeners = []
        try:
            port = 0
            for host in HOSTS:
                listeners.append(socket.create_server((host, port), backlog=128))
                port = listeners[0].getsockname()[1]
            return port, listeners
        except OSError:
            for listener in listeners:
                listener.close()


def main():
    tls = None
    if len(sys.argv) > 2:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[2], sys.argv[3])
    port, listeners = listen()
    for listener in listeners:
        threading.Thread(target=accept, args=(listener, tls), daemon=True).start()
    print(port, flush=True)
    sys.stdin.read()


main()
