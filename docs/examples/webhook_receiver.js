const crypto = require("node:crypto"), http = require("node:http");
const key = Buffer.from(process.env.WEBHOOK_SECRET.replace("whsec_", ""), "base64");
const seen = new Set(); // in earnest: a table with a unique key, which every process of yours shares

http.createServer((request, response) => {
  const parts = [], field = (name) => request.headers["webhook-" + name] ?? "";
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const body = Buffer.concat(parts), mac = crypto.createHmac("sha256", key);
    mac.update(`${field("id")}.${field("timestamp")}.`).update(body);
    const own = Buffer.from("v1," + mac.digest("base64")), given = field("signature").split(" ").map((one) => Buffer.from(one));
    const same = given.some((one) => one.length === own.length && crypto.timingSafeEqual(one, own));
    const good = same && Math.abs(Date.now() / 1000 - Number(field("timestamp"))) < 300;
    if (good && !seen.has(field("id"))) {
      seen.add(field("id"));
      console.log(JSON.parse(body).type, field("id")); // in earnest: into a queue, worked off elsewhere
    }
    response.writeHead(good ? 204 : 400).end();
  });
}).listen(Number(process.env.PORT));
