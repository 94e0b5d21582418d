import base64, hashlib, hmac, http.server, json, os, time

KEY = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
SEEN = set()  # in earnest: a table with a unique key, which every process of yours shares

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        event, stamp = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        mac = hmac.new(KEY, f"{event}.{stamp}.".encode() + body, hashlib.sha256)
        own = b"v1," + base64.b64encode(mac.digest())
        given = self.headers["webhook-signature"].encode().split(b" ")
        good = any(hmac.compare_digest(own, one) for one in given) and abs(time.time() - int(stamp)) < 300
        if good and event not in SEEN:
            SEEN.add(event)
            print(json.loads(body)["type"], event, flush=True)  # in earnest: into a queue, worked off elsewhere
        self.send_response(204 if good else 400)
        self.end_headers()

http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Receiver).serve_forever()
