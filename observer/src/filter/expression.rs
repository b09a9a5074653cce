//! CEL expressions over a flow: `experimental.cel_expression` of a filter.
//!
//! `_flow` is the flow, with proto3's defaults for what is not set; enums stand by name (`Verdict.DROPPED`,
//! `flow.Verdict.DROPPED`). An expression is checked against the schema before it runs ([`check`]): an unknown field,
//! variable or function is refused by name, and so is a result that is no bool. What is left costs little: texts, nodes
//! and nested loops are bounded, and there is nothing in a flow to loop over that is long. An expression that fails on a
//! flow (an index past a list's end) does not match it, as in Hubble.

mod check;
mod view;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::common::types::{self, CelInt, CelString};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::extractors::This;
use cel::parser::{Expression, PrattParser};
use cel::{Context, DeclarationError, Env, ExecutionError, Value};
use prost::Message;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use regex::Regex;
use sinew_api::proto::FILE_DESCRIPTOR_SET;
use sinew_api::proto::flow::Flow;

use super::budget::Budget;
use view::MessageView;

/// Longest expression, in bytes: Hubble's limit.
const LONGEST: usize = 4096;
/// Deepest nesting, of brackets and of operators in a row. Evaluation recurses, with frames of some KiB in a debug build.
const DEEPEST: u16 = 40;
/// Most nodes of an expression.
const MOST_NODES: usize = 600;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the committed descriptors are whole")
});

/// The standard functions, without `matches`: it compiles its pattern for every flow.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

static FLOW: LazyLock<MessageDescriptor> = LazyLock::new(|| message("flow.Flow"));

fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name).unwrap_or_else(|| panic!("the schema has no message {name}"))
}

/// A checked expression.
pub(super) struct CelExpression {
    expression: Expression,
    /// Everything that is the same for every flow: the functions, and the enums.
    constant: Context<'static, 'static>,
}

impl fmt::Debug for CelExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CelExpression({:?})", self.expression)
    }
}

/// A flow as expressions see it, made once for all expressions of a filter.
pub(super) struct FlowView(MessageView);

impl FlowView {
    pub(super) fn new(flow: &Flow) -> Self {
        Self(MessageView::new(FLOW.clone(), flow.encode_to_vec()))
    }
}

impl CelExpression {
    /// Reads and checks an expression.
    pub(super) fn parse(text: &str, budget: &Budget) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("an expression has at most {LONGEST} bytes, not {}", text.len()));
        }
        let mut expression = parser().parse(text).map_err(|errors| format!("{text:?}: {errors}"))?;
        let patterns =
            check::check(&mut expression, budget).map_err(|problem| format!("{text:?}: {problem}"))?;
        let constant = constant(patterns).map_err(|error| format!("{text:?}: {error}"))?;
        Ok(Self { expression, constant })
    }

    /// Whether it holds for a flow.
    pub(super) fn holds(&self, flow: &FlowView) -> bool {
        let mut context = self.constant.new_inner_scope();
        context.add_variable_as_val("_flow", Box::new(flow.0.clone()));
        matches!(Value::resolve(&self.expression, &context), Ok(Value::Bool(true)))
    }
}

/// What an expression finds around it, but for the flow. `patterns` is what it calls `matches` with, by text: compiled
/// once.
fn constant(patterns: HashMap<String, Regex>) -> Result<Context<'static, 'static>, DeclarationError> {
    let mut context = Context::with_env(ENV.clone());
    context.add_function("matches", move |This(text): This<Arc<String>>, pattern: Arc<String>| {
        patterns.get(pattern.as_str()).is_some_and(|pattern| pattern.is_match(&text))
    })?;
    for name in check::enums() {
        context.add_variable_as_val(name, Box::new(EnumView::named(name)));
    }
    context.add_variable_as_val("flow", Box::new(EnumView::package()));
    Ok(context)
}

/// A parser with bounds. The crate's other one takes 130 KiB of stack for each bracket and has none.
fn parser() -> PrattParser {
    PrattParser::new().max_recursion_depth(DEEPEST).max_expression_node_count(MOST_NODES)
}

/// The values of an enum, or the enums of the package, by name.
#[derive(Clone, Debug)]
struct EnumView {
    /// `None` for the package.
    name: Option<String>,
}

impl EnumView {
    fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()) }
    }

    fn package() -> Self {
        Self { name: None }
    }
}

static ENUM_VIEW: types::Type = types::Type::new_unspecified_type("sinew.Enum");

impl Val for EnumView {
    fn get_type(&self) -> &types::Type {
        &ENUM_VIEW
    }

    fn cel_type() -> &'static types::Type {
        &ENUM_VIEW
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn cel::common::traits::Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for EnumView {}

impl cel::common::traits::Indexer for EnumView {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let key = index.downcast_ref::<CelString>().map(CelString::inner).unwrap_or_default();
        let Some(name) = &self.name else { return Ok(CowVal::owned(Self::named(key))) };
        match check::enum_value(name, key) {
            Some(number) => Ok(CowVal::owned(CelInt::from(i64::from(number)))),
            None => Err(ExecutionError::no_such_key(key)),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

#[cfg(test)]
mod tests;
