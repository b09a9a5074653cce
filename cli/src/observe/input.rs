//! Flows from a file or stdin instead of a server: what `-o json` wrote, filtered here as a server would.
//!
//! Flows come in the order of the file. A line that is not an answer is reported on stderr with its number and skipped; a
//! field that this version does not know is ignored. Input that has lines but no answer is not a recording, and an error at
//! its end; empty input is not, since it may be all that a filter before a pipe let through.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use prost_types::Timestamp;
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_api::proto::observer::{GetFlowsRequest, GetFlowsResponse};
use sinew_observer::filter::FilterSet;
use sinew_observer::query::compare;

use super::print::json::POOL;
use crate::failure::Failure;
use crate::output;

/// Most flows that `--last` keeps in memory.
const MOST_LAST: u64 = 1_000_000;
/// How many lines that are not flows are reported one by one.
const MOST_TOLD: usize = 5;
/// What a line must be.
const FORM: &str = "a line is one flow, as `sinew observe -o jsonpb` prints it";

/// The answers of a file to a request. It has an end, whether the request follows or not, as for Hubble.
pub(crate) fn read(
    path: &Path,
    request: &GetFlowsRequest,
) -> Result<Box<dyn Iterator<Item = Result<GetFlowsResponse>>>> {
    let filters = FilterSet::new(&request.whitelist, &request.blacklist)
        .map_err(|error| Failure::usage(format!("a filter has no meaning: {error}")))?;
    // A folder can be opened and gives an error for every read, without end.
    if path.is_dir() {
        return Err(Failure::usage(format!("{} is a folder: name one file of flows", path.display())).into());
    }
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(path).with_context(|| format!("open {}", path.display()))?))
    };
    let descriptor = POOL
        .get_message_by_name("observer.GetFlowsResponse")
        .expect("the built-in schema has observer.GetFlowsResponse");
    let (since, until) = (request.since, request.until);
    let wanted = move |answer: &GetFlowsResponse| {
        in_time(answer.time.as_ref(), since.as_ref(), until.as_ref())
            && match &answer.response_types {
                Some(ResponseTypes::Flow(flow)) => filters.matches(flow),
                Some(ResponseTypes::NodeStatus(_) | ResponseTypes::LostEvents(_)) => true,
                None => false,
            }
    };
    let name = shown(path);
    let (lines, found) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let end = {
        let (name, lines, found) = (name.clone(), Rc::clone(&lines), Rc::clone(&found));
        // Checked once the lines have ended, not before.
        std::iter::once_with(move || {
            (lines.get() && !found.get())
                .then(|| Err(Failure::failed(format!("no line of {name} is a flow: {FORM}")).into()))
        })
    };
    let mut unread = 0;
    let answers = reader
        .lines()
        .enumerate()
        .filter_map(move |(index, line)| match line {
            Ok(line) => {
                lines.set(lines.get() || !line.trim().is_empty());
                let answer = answer(&line, &descriptor).unwrap_or_else(|error| {
                    unread += 1;
                    if unread <= MOST_TOLD {
                        output::tell(format_args!("{name}:{}: not a flow: {error:#}", index + 1));
                    } else if unread == MOST_TOLD + 1 {
                        output::tell(format_args!("{name}: more lines are no flows; {FORM}"));
                    }
                    None
                });
                // Any other JSON object decodes as an empty answer.
                found.set(found.get() || answer.as_ref().is_some_and(|it| it.response_types.is_some()));
                answer.map(Ok)
            }
            Err(error) => {
                Some(Err(anyhow::Error::from(error).context(format!("read line {} of {name}", index + 1))))
            }
        })
        .scan(false, |failed, answer: Result<GetFlowsResponse>| {
            // After a read error nothing more is read.
            (!std::mem::replace(failed, answer.is_err())).then_some(answer)
        })
        .chain(end.flatten())
        .filter(move |answer| answer.as_ref().is_ok_and(&wanted) || answer.is_err());
    select(answers, request)
}

/// The file's name in messages.
pub(crate) fn shown(path: &Path) -> String {
    if path == Path::new("-") { "<stdin>".to_owned() } else { path.display().to_string() }
}

fn select(
    answers: impl Iterator<Item = Result<GetFlowsResponse>> + 'static,
    request: &GetFlowsRequest,
) -> Result<Box<dyn Iterator<Item = Result<GetFlowsResponse>>>> {
    let number = request.number;
    let count = usize::try_from(number).unwrap_or(usize::MAX);
    if number == 0 || number == u64::MAX {
        return Ok(Box::new(answers));
    }
    if request.first {
        return Ok(Box::new(answers.take(count)));
    }
    if number > MOST_LAST {
        return Err(Failure::usage(format!(
            "--last takes at most {MOST_LAST} with --input-file, not {number}"
        ))
        .into());
    }
    let mut last = VecDeque::new();
    for answer in answers {
        if last.len() == count {
            last.pop_front();
        }
        last.push_back(answer);
    }
    Ok(Box::new(last.into_iter()))
}

fn answer(line: &str, descriptor: &MessageDescriptor) -> Result<Option<GetFlowsResponse>> {
    if line.trim().is_empty() { Ok(None) } else { parse(line, descriptor).map(Some) }
}

fn parse(line: &str, descriptor: &MessageDescriptor) -> Result<GetFlowsResponse> {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut deserializer, &options)?;
    deserializer.end()?;
    Ok(GetFlowsResponse::decode(dynamic.encode_to_vec().as_slice())?)
}

fn in_time(time: Option<&Timestamp>, since: Option<&Timestamp>, until: Option<&Timestamp>) -> bool {
    let Some(time) = time else { return true };
    since.is_none_or(|since| compare(time, since).is_ge())
        && until.is_none_or(|until| compare(time, until).is_le())
}

#[cfg(test)]
mod tests;
