// Runs kinesis-local, reachable through a socket file alone, and ends when its input does.
// Usage: node kinesis.js SOCKET PACKAGE, in a network namespace of its own: the server binds all interfaces.
const net = require("net");
const [socket, folder] = process.argv.slice(2);
process.stdin.on("end", () => process.exit()).resume();
net
  .createServer((outside) => {
    const inside = net.connect(Number(process.env.KINESIS_MOCK_PLAIN_PORT), "127.0.0.1");
    const end = () => [outside, inside].forEach((one) => one.destroy());
    [outside, inside].forEach((one) => one.on("error", end).on("close", end));
    outside.pipe(inside).pipe(outside);
  })
  .listen(socket);
process.chdir(folder);
require(`${folder}/main.js`);
