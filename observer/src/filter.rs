//! Flow filters: every field of `FlowFilter`, compiled once and matched without a look at the request again.
//!
//! A flow passes if one filter of the allow list matches (or there is none) and none of the deny list does. A filter
//! matches if all of its fields do, a field if one of its values does. The meaning of each field is that of Hubble 1.19;
//! where Hubble silently accepts nonsense (a slash too many in a pod name), it is refused here. Neighbours: [`clause`] has
//! the fields, [`compile`] turns a request into clauses, [`selector`], [`pattern`], [`address`] and [`expression`] parse
//! the texts, [`budget`] bounds what all of them cost.

mod address;
mod budget;
mod clause;
mod compile;
mod expression;
mod pattern;
mod selector;

use std::cell::LazyCell;

use sinew_api::proto::flow::{Flow, FlowFilter};
use thiserror::Error;

use budget::Budget;
use clause::Clause;
use expression::FlowView;

/// Most filters in one list: `hubble observe` makes two for each flag that names either end.
pub const MOST_FILTERS: usize = 256;
/// Most values in one field of a filter.
pub const MOST_VALUES: usize = 1024;
/// Most bytes in one text of a filter.
pub const LONGEST_TEXT: usize = 4096;

/// A filter that can't be applied: the list, the field with its index, and what is wrong.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{list}[{index}].{field}: {problem}")]
pub struct FilterError {
    /// `whitelist` or `blacklist`, as in the request.
    pub list: &'static str,
    /// Which filter of the list.
    pub index: usize,
    /// The field, with the index of the value, such as `source_ip[2]`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// An allow list and a deny list.
#[derive(Debug, Default)]
pub struct FilterSet {
    allow: Vec<Filter>,
    deny: Vec<Filter>,
}

/// All clauses must match; without one it matches every flow.
#[derive(Debug)]
struct Filter {
    clauses: Vec<Clause>,
}

impl FilterSet {
    /// Compiles both lists.
    ///
    /// # Errors
    /// The first value that has no meaning, with its place.
    pub fn new(allow: &[FlowFilter], deny: &[FlowFilter]) -> Result<Self, FilterError> {
        let budget = Budget::default();
        Ok(Self { allow: list("whitelist", allow, &budget)?, deny: list("blacklist", deny, &budget)? })
    }

    /// Whether a flow passes.
    #[must_use]
    pub fn matches(&self, flow: &Flow) -> bool {
        let view = LazyCell::new(|| FlowView::new(flow));
        (self.allow.is_empty() || self.allow.iter().any(|filter| filter.matches(flow, || &view)))
            && !self.deny.iter().any(|filter| filter.matches(flow, || &view))
    }
}

impl Filter {
    /// `view` gives the flow as expressions see it, which is made once for all of a request's, and only if it is wanted.
    fn matches<'a>(&self, flow: &Flow, view: impl Fn() -> &'a FlowView) -> bool {
        self.clauses.iter().all(|clause| clause.matches(flow, &view))
    }
}

fn list(list: &'static str, filters: &[FlowFilter], budget: &Budget) -> Result<Vec<Filter>, FilterError> {
    if filters.len() > MOST_FILTERS {
        let problem = format!("at most {MOST_FILTERS} filters are taken, not {}", filters.len());
        return Err(FilterError { list, index: MOST_FILTERS, field: "*".to_owned(), problem });
    }
    let compiled = filters.iter().enumerate().map(|(index, filter)| match compile::clauses(filter, budget) {
        Ok(clauses) => Ok(Filter { clauses }),
        Err(compile::Problem { field, problem }) => Err(FilterError { list, index, field, problem }),
    });
    compiled.collect()
}

#[cfg(test)]
mod tests;
