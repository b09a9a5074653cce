//! What policies mean. This comment is the specification; the code follows by number.
//!
//! Selection and default deny
//! 1. What the forms of a section mean in each schema (`ingress: [{}]`, an empty `from`) is settled where objects are
//!    decoded (`sinew_api::policy`): here a rule has peers, which may be anybody or nobody, and ports, which may be all.
//! 2. Default deny is computed for each endpoint and direction, and remembers the policies that switched it on. A section
//!    of deny rules switches it on too, unless `enableDefaultDeny` says otherwise.
//! 3. The scope of selectors (namespace, source prefixes) is part of the decoded selector.
//! 4. Objects of different kinds with one name are different objects; all are in force.
//!
//! Peers
//! 5. A CIDR matches by address: NetworkPolicy's `ipBlock` whatever stands behind it, the others only what is outside
//!    the cluster, unless `policyCIDRMatchMode` adds nodes or pods. The kernel knows an address by its class: the longest
//!    prefix that any policy in force here names, and whether it is outside, a node's, or in a range of pods.
//! 6. Entities are sets of identities. `cluster` is everybody but the world and other clusters' pods. `kube-apiserver` is
//!    a configured list of addresses; `ingress` and `health` have no members here. `world` is 2, 9 and 10.
//! 7. The node reaches its own pods under any policy, unless a deny rule holds it: one that names the host, or one that
//!    names anybody. Other nodes are `remote-node` and are not exempt. A pod that reaches its own node is judged.
//! 8. An endpoint whose labels aren't known is `init`: nothing but what a policy that selects `reserved:init` allows, in
//!    both directions, and 7 does not hold for it. One without a pod has the labels of its CNI configuration, or is
//!    `unmanaged`.
//! 9. Labels and policy of a pod that ends hold until CNI DEL; the address of one that is over leaves its peers at once.
//! 10. A named port is the selected pod's own for ingress, and for egress each peer's own, by identity. Where nobody has
//!     it, it matches nothing; so behind a CIDR or an entity outside the cluster.
//!
//! Precedence
//! 11. Deny before allow before what holds by default. An entry that a broader one of higher precedence covers would be
//!     found first in the kernel, so it is not written with its own verdict: every entry carries the best verdict of
//!     all that hold it. Between identity, class and anybody: higher precedence, then the longer protocol and port
//!     prefix, then that order. Of two equal rules the one of the first policy by name is reported.
//! 12. L7 rules are refused when they are decoded.
//! 13. Audit: each entry has an enforced verdict, computed without audit policies, and a shadow verdict, computed with
//!     them. Audit policies open nothing and close nothing.
//!
//! Refused objects
//! 14. A refused object contributes its default-deny switches and its deny rules, and no allows. A refused edit keeps the
//!     last valid version in force. An object whose entries would not fit into a table is refused with the numbers,
//!     before one entry is written; if its deny rules don't fit either, it denies everything that it would have judged.
//! 15. The state of each object, and why, is in the snapshot.
//!
//! Revisions and identities
//! 16. The revision rises with every change of what is enforced.
//! 17. Relabel: the new identity is announced and in all tables first. While it moves the endpoint enforces what both
//!     label sets allow, and default deny if either has it; its packets carry the old identity until it has moved.
//! 18. Numbers that only this node gives (`numbers.rs`) keep their meaning for good.
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
