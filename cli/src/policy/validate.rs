//! `sinew policy validate FILE|-|DIR`: what would be refused, field by field, and what is valid but a foot-gun.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use sinew_api::object::{Object, Origin, Problem, Refused};

use crate::OutputArgs;
use crate::explain::words;
use crate::failure::Failure;
use crate::folder::{self, Folder};
use crate::offline::Offline;
use crate::output::paint::Tone;
use crate::output::{self, Format, Paint};
use crate::unread::Unread;

/// Arguments of `sinew policy validate`.
#[derive(Args)]
pub(crate) struct ValidateArgs {
    /// Files of objects, - for stdin, or folders; of two objects of one name the one that is named first counts
    #[arg(value_name = "FILE|-|DIR", required = true)]
    inputs: Vec<PathBuf>,
    /// Judge against the pods, nodes and other objects of this folder too
    #[arg(long, value_name = "DIR")]
    from_folder: Option<PathBuf>,
    /// Exit 1 for warnings too
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What was found about one document.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// Kind and name, or empty where they can't be read.
    name: String,
    origin: Origin,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Of a kind that is not read: passed over. Its problem says which kind that is.
    foreign: bool,
}

impl Finding {
    fn is_refused(&self) -> bool {
        !self.foreign && !self.problems.is_empty()
    }
}

/// Checks the objects; exit 1 when one would be refused.
pub(crate) fn run(args: &ValidateArgs) -> Result<()> {
    let read = read(&args.inputs)?;
    let around = match &args.from_folder {
        Some(folder) => Folder::read(folder)?,
        None => Folder::default(),
    };
    Unread::of(&around).tell();
    let all = around.overlaid_by(&read);
    output::tell(known(&all));
    let findings = findings(&read, &all)?;
    let screen = args.output.screen();
    match screen.format {
        Format::Table => output::write(&text(&findings, screen.paint))?,
        Format::Json | Format::Yaml => screen.show_value(&value(&findings))?,
    }
    judge(&findings, args.strict).map_err(Into::into)
}

/// All inputs as if they were one.
fn read(inputs: &[PathBuf]) -> Result<Folder> {
    let mut all = Folder::default();
    for input in inputs {
        let read = Folder::read_any(input)?;
        all.refused.extend(read.refused);
        for object in read.objects {
            let name = object.name();
            let Some(first) = all.objects.iter().find(|known| known.name() == name) else {
                all.objects.push(object);
                continue;
            };
            let origin = folder::origin(&object);
            let message = format!(
                "{name} stands in {} already, and that one counts: it is named first",
                folder::origin(first)
            );
            let problem = Problem { path: "metadata.name".into(), message, origin: origin.clone() };
            all.refused.push(Refused::new(Some(name), origin, vec![problem]));
        }
    }
    Ok(all)
}

/// What was known of the cluster: warnings about it can't be better than that.
fn known(all: &Folder) -> String {
    let count = |is: fn(&Object) -> bool| all.objects.iter().filter(|object| is(object)).count();
    // A pod and its endpoint are one.
    let pods = count(|object| matches!(object, Object::Pod(_)))
        .max(count(|object| matches!(object, Object::Endpoint(_))));
    let nodes = count(|object| matches!(object, Object::Node(_)));
    let namespaces = count(|object| matches!(object, Object::Namespace(_)));
    let groups = count(|object| matches!(object, Object::CidrGroup(_)));
    if pods + nodes == 0 {
        return "no pod and no node is known, so whom selectors and CIDRs find is not checked; \
                --from-folder DIR names a folder that has them"
            .to_owned();
    }
    format!(
        "judged against {}, {}, {}, {}",
        words::count(pods, "pod", "pods"),
        words::count(nodes, "node", "nodes"),
        words::count(namespaces, "namespace", "namespaces"),
        words::count(groups, "CIDR group", "CIDR groups")
    )
}

/// What the decoder says of each document, and what the engine says of the policies among `all` objects.
fn findings(read: &Folder, all: &Folder) -> Result<Vec<Finding>> {
    let snapshot = Offline::new(all)?.engine.snapshot();
    // What can be read of a refused group is told of as the refused document that it is.
    let whole = |object: &&Object| !matches!(object, Object::CidrGroup(group) if !group.whole);
    let valid = read.objects.iter().filter(whole).map(|object| match object {
        Object::Policy(policy) => {
            let view = snapshot.policies.get(&policy.name);
            Finding {
                name: policy.name.to_string(),
                origin: policy.origin.clone(),
                problems: view.map_or_else(|| policy.problems.clone(), |view| view.problems.clone()),
                warnings: view.map_or_else(|| policy.warnings.clone(), |view| view.warnings.clone()),
                foreign: false,
            }
        }
        other => Finding {
            name: other.name().to_string(),
            origin: folder::origin(other),
            problems: Vec::new(),
            warnings: Vec::new(),
            foreign: false,
        },
    });
    let refused = read.refused.iter().map(|refused| Finding {
        name: refused.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        origin: refused.origin.clone(),
        problems: refused.problems.clone(),
        warnings: Vec::new(),
        foreign: refused.foreign,
    });
    let mut findings = valid.chain(refused).collect::<Vec<_>>();
    findings.sort_by(|a, b| a.origin.cmp(&b.origin));
    for finding in &mut findings {
        finding.problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        finding.warnings.sort_by(|a, b| a.origin.cmp(&b.origin));
    }
    Ok(findings)
}

fn judge(findings: &[Finding], strict: bool) -> Result<(), Failure> {
    let refused = findings.iter().filter(|finding| finding.is_refused()).count();
    let objects = findings.iter().filter(|finding| !finding.foreign).count();
    let all = words::count(objects, "object", "objects");
    let warned = findings.iter().filter(|finding| !finding.warnings.is_empty()).count();
    if refused > 0 {
        return Err(Failure::failed(format!("{refused} of {all} would be refused")));
    }
    if findings.iter().all(|finding| finding.foreign) {
        return Err(Failure::failed("there is no object in it"));
    }
    if strict && warned > 0 {
        let have = if objects == 1 { "has" } else { "have" };
        return Err(Failure::failed(format!("{warned} of {all} {have} warnings")));
    }
    Ok(())
}

fn text(findings: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    for finding in findings {
        let (tone, word) = match (finding.problems.is_empty(), finding.warnings.is_empty()) {
            _ if finding.foreign => (Tone::Plain, "passed over"),
            (false, _) => (Tone::Bad, "REFUSED"),
            (true, false) => (Tone::Odd, "valid, with warnings"),
            (true, true) => (Tone::Good, "valid"),
        };
        // It may have a name: where the kind is not known, none is read.
        let name = if finding.name.is_empty() { "a document" } else { &finding.name };
        text.push_str(&format!(
            "{}  {}  {}\n",
            paint.tone(Tone::Strong, name),
            finding.origin,
            paint.tone(tone, word)
        ));
        for problem in &finding.problems {
            text.push_str(&line("", problem));
        }
        for warning in &finding.warnings {
            text.push_str(&line("warning: ", warning));
        }
    }
    text
}

fn line(word: &str, problem: &Problem) -> String {
    let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
    let place =
        if problem.origin.line == 0 { String::new() } else { format!("line {}: ", problem.origin.line) };
    format!("  {place}{word}{path}{}\n", problem.message)
}

fn value(findings: &[Finding]) -> Value {
    let problems = |problems: &[Problem]| {
        let one = |problem: &Problem| json!({ "path": problem.path, "message": problem.message, "file": problem.origin.file, "line": problem.origin.line });
        problems.iter().map(one).collect::<Vec<_>>()
    };
    let objects = findings.iter().map(|finding| {
        json!({
            "name": finding.name,
            "file": finding.origin.file,
            "line": finding.origin.line,
            "valid": if finding.foreign { Value::Null } else { Value::Bool(!finding.is_refused()) },
            "foreign": finding.foreign,
            "problems": problems(&finding.problems),
            "warnings": problems(&finding.warnings),
        })
    });
    json!({ "objects": objects.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata:
  name: web
spec:
  endpointSelector:
    matchLabels:
      app: web
  ingress:
    - fromEndpoints:
        - matchLabels:
            app: client
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: names
spec:
  endpointSelector: {}
  egress:
    - toFQDNs:
        - matchName: example.org
";

    fn read(text: &str) -> Vec<Finding> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("two.yaml");
        std::fs::write(&file, text).unwrap();
        let mut findings = {
            let read = super::read(&[file]).unwrap();
            super::findings(&read, &read).unwrap()
        };
        for finding in &mut findings {
            finding.origin.file = "two.yaml".into();
        }
        findings
    }

    #[test]
    fn a_refused_object_names_the_line_and_path_of_its_field() {
        let findings = read(TWO);
        let shown = text(&findings, Paint::Plain);
        let mut lines = shown.lines();
        assert_eq!(lines.next(), Some("snp/default/web  two.yaml:1  valid"));
        assert_eq!(lines.next(), Some("cnp/default/names  two.yaml:14  REFUSED"));
        let problem = lines.next().unwrap();
        assert!(problem.starts_with("  line 21: spec.egress[0].toFQDNs: "), "{problem}");
        let failure = judge(&findings, false).unwrap_err();
        assert_eq!(failure.message, "1 of 2 objects would be refused");
    }

    #[test]
    fn what_is_found_stands_in_the_order_of_its_lines() {
        let findings = read(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: names}\nspec:\n  \
             policyCIDRMatchMode: [pods]\n  endpointSelector: {}\n  ingress:\n  - fromCIDR: [10.0.0.0/33]\n  egress:\n  \
             - toFQDNs: [{matchName: example.org}]\n  nodeSelector: {}\n",
        );
        let lines = findings[0].problems.iter().map(|problem| problem.origin.line).collect::<Vec<_>>();
        assert!(lines.len() > 3 && lines.is_sorted(), "{lines:?}");
    }

    #[test]
    fn several_files_are_one_text() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
        std::fs::write(at("b.yaml"), namespace).unwrap();
        std::fs::write(at("a.yaml"), format!("{TWO}---\n{namespace}")).unwrap();
        let read = super::read(&[at("b.yaml"), at("a.yaml")]).unwrap();
        assert_eq!((read.objects.len(), read.refused.len()), (3, 1));
        let message = &read.refused[0].problems[0].message;
        assert!(message.contains("b.yaml:1 already, and that one counts: it is named first"), "{message}");
        assert!(known(&read).starts_with("no pod and no node is known"));
    }

    #[test]
    fn json_says_the_same() {
        let value = value(&read(TWO));
        assert_eq!(value["objects"][0]["valid"], true);
        assert_eq!(value["objects"][1]["problems"][0]["line"], 21);
        assert_eq!(value["objects"][1]["problems"][0]["path"], "spec.egress[0].toFQDNs");
    }

    #[test]
    fn a_text_without_objects_is_no_success() {
        assert!(judge(&read("# nothing\n"), false).is_err());
    }

    #[test]
    fn a_document_of_another_kind_is_passed_over() {
        let findings = read(&format!("apiVersion: apps/v1\nkind: Deployment\n---\n{TWO}"));
        let shown = text(&findings, Paint::Plain);
        assert!(
            shown.starts_with(
                "a document  two.yaml:1  passed over\n  line 2: kind: \"Deployment\" of \"apps/v1\" is not read here\nsnp/"
            ),
            "{shown}"
        );
        assert_eq!(judge(&findings, false).unwrap_err().message, "1 of 2 objects would be refused");
        assert!(judge(&read("apiVersion: v1\nkind: Service\n"), false).is_err(), "there is no object in it");
        assert_eq!(value(&findings)["objects"][0]["valid"], Value::Null, "neither valid nor refused");
    }

    #[test]
    fn a_broken_text_says_where() {
        let findings = read("kind: [\n");
        assert_eq!(findings.len(), 1);
        assert!(text(&findings, Paint::Plain).starts_with("a document  two.yaml:"));
        assert!(judge(&findings, false).is_err());
    }

    #[test]
    fn a_document_that_has_a_name_is_not_told_to_have_none() {
        let findings = read("apiVersion: networking.k8s.io/v2\nkind: NetworkPolicy\nmetadata: {name: web}\n");
        let shown = text(&findings, Paint::Plain);
        assert!(shown.starts_with("a document  two.yaml:1  REFUSED\n"), "{shown}");
        assert_eq!(judge(&findings, false).unwrap_err().message, "1 of 1 object would be refused");
    }

    #[test]
    fn what_is_known_is_counted_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pod.yaml");
        std::fs::write(&file, "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: default}\n")
            .unwrap();
        let known = known(&super::read(&[file]).unwrap());
        assert_eq!(known, "judged against 1 pod, 0 nodes, 0 namespaces, 0 CIDR groups");
    }

    #[test]
    fn a_file_as_a_whole_has_no_line() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("e.yaml"), "").unwrap();
        let read = super::read(&[folder.path().to_owned()]).unwrap();
        let text = text(&findings(&read, &read).unwrap(), Paint::Plain);
        assert!(text.contains("e.yaml  REFUSED\n  the file is empty"), "{text}");
    }
}
