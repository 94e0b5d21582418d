//! The walls of the network: nothing is open but what each service needs, and nothing private but the datastores.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use wire::dial::is_global_unicast;

use super::render::{ENVIRONMENTS, list, objects, of_kind, workloads};

const MAIL_PORTS: [u64; 7] = [25, 143, 443, 465, 587, 993, 8443];
/// First addresses of what is not the public internet (IANA special-purpose registries), written down once more so that
/// a network missing from both lists shows here.
const PRIVATE: &[&str] = &[
    "0.0.0.0",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.2.0",
    "192.88.99.0",
    "192.168.0.0",
    "192.168.255.255",
    "198.18.0.0",
    "198.51.100.0",
    "203.0.113.0",
    "224.0.0.0",
    "240.0.0.0",
    "255.255.255.255",
    "::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "fc00::1",
    "fe80::1",
    "ff02::1",
    "2001::",
    "2001:db8::",
    "2002::",
    "3fff::",
];

/// An address block and what is cut out of it.
struct Block {
    net: IpNet,
    except: Vec<IpNet>,
}

fn number(ip: IpAddr) -> (u32, u128) {
    match ip {
        IpAddr::V4(ip) => (32, u128::from(u32::from(ip))),
        IpAddr::V6(ip) => (128, u128::from(ip)),
    }
}

fn address(bits: u32, number: u128) -> IpAddr {
    if bits == 32 {
        u32::try_from(number).map(|n| IpAddr::V4(n.into())).unwrap()
    } else {
        IpAddr::V6(number.into())
    }
}

fn cidr(text: &Value) -> IpNet {
    let net: IpNet = text.as_str().unwrap().parse().unwrap();
    assert_eq!(net, net.trunc(), "it has host bits");
    net
}

/// The first and the last address of a network.
fn edges(net: IpNet) -> (u32, u128, u128) {
    let (bits, first) = number(net.network());
    (bits, first, number(net.broadcast()).1)
}

impl Block {
    fn read(block: &Value) -> Self {
        Self { net: cidr(&block["cidr"]), except: list(&block["except"]).iter().map(cidr).collect() }
    }

    fn allows(&self, ip: IpAddr) -> bool {
        self.net.contains(&ip) && !self.except.iter().any(|e| e.contains(&ip))
    }

    /// Where the block begins and ends, each hole's neighbours, and all of [`PRIVATE`]: a private address that is
    /// allowed lies in a run of such addresses, and one end of that run is among these.
    fn probes(&self) -> Vec<IpAddr> {
        let (bits, first, last) = edges(self.net);
        let holes = self
            .except
            .iter()
            .map(|e| edges(*e))
            .flat_map(|(_, a, b)| [a.wrapping_sub(1), b.wrapping_add(1)]);
        let edges = [first, last].into_iter().chain(holes).filter(|n| (first..=last).contains(n));
        edges.map(|n| address(bits, n)).chain(PRIVATE.iter().map(|ip| ip.parse().unwrap())).collect()
    }
}

/// What a policy lets out that it should not.
fn leaks(policy: &Value) -> Vec<String> {
    let name = policy["metadata"]["name"].as_str().unwrap();
    let mut found = vec![];
    for rule in list(&policy["spec"]["egress"]) {
        let ports: Vec<u64> = list(&rule["ports"]).iter().map(|p| p["port"].as_u64().unwrap_or(0)).collect();
        let ranged = list(&rule["ports"]).iter().any(|p| !p["endPort"].is_null());
        // No ports are all ports, no peers are all peers.
        if ports.is_empty() || ranged || list(&rule["to"]).is_empty() {
            found.push(format!("{name}: a rule without ports or peers"));
        }
        for peer in list(&rule["to"]) {
            let datastore = name == "datastores" && matches!(ports[..], [5432] | [6379]);
            if peer["ipBlock"].is_object() {
                let block = Block::read(&peer["ipBlock"]);
                let private =
                    block.probes().into_iter().find(|ip| block.allows(*ip) && !is_global_unicast(*ip));
                let named = datastore && block.net.max_prefix_len() - block.net.prefix_len() <= 8;
                if let Some(ip) = private.filter(|_| !named) {
                    found.push(format!("{name}: {ip} may be reached"));
                } else if !named && !ports.iter().all(|p| MAIL_PORTS.contains(p)) {
                    found.push(format!("{name}: public addresses on {ports:?}"));
                }
            } else {
                let space = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"].as_str();
                let pods = peer["podSelector"]["matchLabels"].as_object().is_some_and(|l| !l.is_empty());
                let dns = name == "dns" && space == Some("kube-system") && ports.iter().all(|p| *p == 53);
                if !(pods && (dns || datastore && space.is_some())) {
                    found.push(format!("{name}: {peer} on {ports:?}"));
                }
            }
        }
    }
    found
}

/// Whether a label selector takes in an object with these labels.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = |(key, value): (&String, &Value)| labels[key] == *value;
    selector["matchLabels"].as_object().is_none_or(|l| l.iter().all(equal))
        && list(&selector["matchExpressions"]).iter().all(|e| {
            assert_eq!(e["operator"], "In", "this test knows no other operator");
            list(&e["values"]).contains(&labels[e["key"].as_str().unwrap()])
        })
}

#[test]
fn nothing_private_may_be_reached_but_dns_and_the_named_datastores() {
    for ip in PRIVATE {
        assert!(!is_global_unicast(ip.parse().unwrap()), "{ip}");
    }
    for environment in ENVIRONMENTS {
        let objects = objects(environment);
        for policy in of_kind(&objects, "NetworkPolicy") {
            assert_eq!(leaks(policy), Vec::<String>::new(), "{environment}");
        }
    }
}

#[test]
fn every_hole_in_the_wall_is_found() {
    let objects = objects("overlays/production");
    let policies = of_kind(&objects, "NetworkPolicy");
    let policy = |name: &str| (*policies.iter().find(|p| p["metadata"]["name"] == name).unwrap()).clone();
    let public = policy("public-mail-servers");
    for peer in [0, 1] {
        let except = format!("/spec/egress/0/to/{peer}/ipBlock/except");
        for hole in 0..list(public.pointer(&except).unwrap()).len() {
            let mut broken = public.clone();
            let removed = broken.pointer_mut(&except).and_then(Value::as_array_mut).unwrap().remove(hole);
            assert_ne!(leaks(&broken), Vec::<String>::new(), "without {removed}");
        }
    }
    let datastores = policy("datastores");
    for (of, pointer, planted) in [
        (&public, "/spec/egress/0/to/1/ipBlock/cidr", json!("::/0")),
        (&public, "/spec/egress/0/to/1/ipBlock/except", json!(["2002::/16"])),
        (&public, "/spec/egress/0/to/0/ipBlock", json!({ "cidr": "10.1.0.0/16" })),
        (&public, "/spec/egress/0/to/0", json!({ "namespaceSelector": {} })),
        (&public, "/spec/egress/0/ports", json!([])),
        (&public, "/spec/egress/0/ports/0", json!({ "protocol": "TCP", "port": 25, "endPort": 9999 })),
        (&public, "/spec/egress/0/ports/0/port", json!(22)),
        (&public, "/spec/egress/0/to", json!([])),
        (&datastores, "/spec/egress/0/to/0/ipBlock/cidr", json!("10.0.0.0/8")),
        (&datastores, "/spec/egress/0/ports/0/port", json!(22)),
        (
            &datastores,
            "/spec/egress/0/to/0",
            json!({ "namespaceSelector": { "matchLabels": { "team": "data" } } }),
        ),
    ] {
        let mut broken = of.clone();
        *broken.pointer_mut(pointer).unwrap() = planted.clone();
        assert_ne!(leaks(&broken), Vec::<String>::new(), "{pointer} = {planted}");
    }
}

#[test]
fn each_service_reaches_what_it_needs_and_only_the_api_is_reached() {
    for environment in ENVIRONMENTS {
        let objects = objects(environment);
        let policies = of_kind(&objects, "NetworkPolicy");
        let closed = json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] });
        assert!(policies.iter().any(|p| p["spec"] == closed), "{environment} has no default deny");
        for workload in workloads(&objects) {
            let labels = &workload["spec"]["template"]["metadata"]["labels"];
            let component = labels["app.kubernetes.io/component"].as_str().unwrap();
            let mine =
                || policies.iter().filter(|p| selects(&p["spec"]["podSelector"], labels)).map(|p| &p["spec"]);
            let out: Vec<&Value> = mine().flat_map(|p| list(&p["egress"])).collect();
            let reaches = |ip: &str, port: u64| {
                out.iter().any(|rule| {
                    let to = |peer: &Value| {
                        peer["ipBlock"].is_object()
                            && Block::read(&peer["ipBlock"]).allows(ip.parse().unwrap())
                    };
                    list(&rule["ports"]).iter().any(|p| p["port"] == port) && list(&rule["to"]).iter().any(to)
                })
            };
            let dials = ["api", "worker"].contains(&component);
            for (ip, port) in MAIL_PORTS.iter().flat_map(|p| [("8.8.8.8", *p), ("2606:4700::1111", *p)]) {
                assert_eq!(reaches(ip, port), dials, "{component} to {ip}:{port}");
            }
            for port in [53, 5432, 6379] {
                let open = out.iter().any(|r| list(&r["ports"]).iter().any(|p| p["port"] == port));
                assert!(open, "{component} does not reach port {port}");
            }
            let inward: Vec<&Value> = mine().flat_map(|p| list(&p["ingress"])).collect();
            let labels = json!({ "kubernetes.io/metadata.name": "ingress-nginx" });
            let from = json!([{ "namespaceSelector": { "matchLabels": labels } }]);
            let open = json!({ "from": from, "ports": [{ "protocol": "TCP", "port": 5000 }] });
            assert_eq!(inward, if component == "api" { vec![&open] } else { vec![] }, "{component}");
        }
    }
}
