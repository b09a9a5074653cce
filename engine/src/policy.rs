//! What policies mean. This comment is the specification; the code follows by number.
//!
//! Selection and default deny
//! 1. What the forms of a section mean in each schema (`ingress: [{}]`, an empty `from`) is settled where objects are
//!    decoded (`sinew_api::policy`): here a rule has peers, which may be anybody or nobody, and ports, which may be all.
//! 2. Default deny is computed for each endpoint and direction, together with the policies that switched it on. A section of
//!    deny rules switches it on too, unless `enableDefaultDeny` says otherwise.
//! 3. The scope of selectors (namespace, source prefixes) is part of the decoded selector.
//! 4. Objects of different kinds with the same name are different objects; all are in force. If two documents of one folder
//!    have the same kind, namespace and name, the first path in byte order wins; the other is refused, and both are named.
//!
//! Peers
//! 5. A CIDR matches by address: NetworkPolicy's `ipBlock` matches whoever has the address, the others only addresses
//!    outside the cluster, unless `policyCIDRMatchMode` adds nodes or pods. The kernel sees an address by its class: the
//!    longest prefix that any policy in force here names, and whether it is outside, a node's, or in a range of pods.
//! 6. Entities are sets of identities. `cluster` is everybody but the world and other clusters' pods. `kube-apiserver` is
//!    a configured list of addresses, which have one identity: those of a node are `remote-node` too, those outside the
//!    cluster `world` too. Where both kinds are among them, that is allowed to the identity which is allowed to each.
//!    `ingress` and `health` have no members here. `world` is 2, 9 and 10, and 7 outside the cluster.
//! 7. The node reaches its own pods under any policy, unless a deny rule matches it: one that names the host, or one that
//!    names anybody. Other nodes are `remote-node` and are not exempt. A pod that connects to its own node is judged.
//! 8. An unassigned address in the cluster's ranges is unknown: packets from and to it are dropped with a reason of their
//!    own, and it is never world. An endpoint whose labels aren't known is `init`: only what a policy that selects
//!    `reserved:init` allows passes, in both directions, and 7 does not apply to it. An endpoint without a pod has the
//!    labels of its CNI configuration, or is `unmanaged`.
//! 9. Labels and policy of a pod that is ending apply until CNI DEL; the address of a pod that has ended stops being its own
//!    for peers at once.
//! 10. A named port is the selected pod's own for ingress, and for egress each peer's own, by identity. Where nobody has
//!     it, it matches nothing; nor does it for a CIDR or an entity outside the cluster. `ANY` with a port is TCP, UDP and
//!     SCTP, never ICMP. Neighbour discovery between a pod and its gateway is never judged; an ICMP error passes only with a
//!     connection that is tracked and allowed.
//!
//! Precedence
//! 11. Precedence is that of `sinew_bpf::policy`, 2 and 3. The kernel finds only the longest prefix of each key, so an
//!     entry that a broader one of higher precedence covers is not written with its own verdict: every entry carries the
//!     verdict of highest precedence among all entries that contain it. Of two equal rules, the one of the first policy by
//!     name is reported.
//! 12. L7 rules are refused when they are decoded.
//! 13. Audit: each entry has an enforced verdict, computed without audit policies, and a shadow verdict, computed with
//!     them. Audit policies open nothing and close nothing.
//!
//! Refused objects
//! 14. A refused object contributes its default-deny switches and its deny rules, and no allows. A refused edit keeps the
//!     last valid version in force. An object whose entries would not fit into a table is refused with the numbers,
//!     before one entry is written; if its deny rules don't fit either, it denies everything that it would have judged.
//! 15. The state of each object, and why, is in the snapshot; the agent reports it in `.status` of the folder, in its
//!     answers and metrics, and once in its log. Documents of one file are independent; one that can't be read keeps the
//!     last good version of its object in force.
//!
//! Revisions and identities
//! 16. The revision rises with every change of what is enforced. It is the node's own, so it can't be used to compare nodes.
//!     Each node publishes a digest of the names and generations of all that it enforces; it is up to date when that equals
//!     the digest of what the store holds. A node that was silent for 30 s is named, and waited for unless whoever waits
//!     says otherwise: its pods go on with what it had.
//! 17. Relabel: the new identity is announced, and used once the tables of every living node hold it, or after 5 s. Until
//!     then the endpoint enforces what both label sets allow, and default deny if either has it. Its packets carry the old
//!     identity until it has moved, and the old identity stays valid until the addresses have followed.
//! 18. A number never gets a second meaning while packets of the first may still be around. Each identity is one file,
//!     created exclusively: whoever comes second takes the winner's number. An identity that no endpoint has is released
//!     after the longest time-out of a connection. Numbers that only this node assigns (`numbers.rs`) survive a restart.
//! 19. Names of policies in flows come from the cause behind a cookie.
//! 20. `explain.rs` never guesses: it asks these tables with the kernel's code.
//!
//! Neighbours: `state` feeds this module and orders what comes out; `sinew_bpf::policy` reads the tables.

pub(crate) mod classes;
pub(crate) mod compile;
pub(crate) mod l4;
pub(crate) mod load;
pub(crate) mod matcher;
pub(crate) mod relabel;

pub use compile::{Compiled, Enforcement};
