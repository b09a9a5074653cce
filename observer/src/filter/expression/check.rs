//! What an expression may say: fields and enums of the schema, known functions, loops over what a flow holds.
//!
//! The crate that evaluates has no checker. This one follows types as far as a refusal needs: a message knows its
//! fields, a list its elements, and what comes out of a function is known or anything. It also turns `has(a.b)` into a
//! question that a message can answer ([`IS_SET`]), since reading a field that is not set gives its default.

use std::collections::HashMap;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::CelInt;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use regex::Regex;

use super::super::budget::Budget;
use super::view::{IS_SET, is_wrapper};
use super::{DEEPEST, MOST_NODES, POOL, message};

/// Loops within loops. A flow's lists have some tens of elements, so that two are some thousand steps.
const MOST_LOOPS: usize = 2;
/// Memory of one compiled pattern, in bytes.
const REGEX_BYTES: usize = 1 << 18;

/// Functions, with what they give. Operators are in here by the names that the parser gives them.
const FUNCTIONS: &[(&str, Gives)] = &[
    ("_&&_", Gives::Bool),
    ("_||_", Gives::Bool),
    ("!_", Gives::Bool),
    ("_==_", Gives::Bool),
    ("_!=_", Gives::Bool),
    ("_<_", Gives::Bool),
    ("_<=_", Gives::Bool),
    ("_>_", Gives::Bool),
    ("_>=_", Gives::Bool),
    ("@in", Gives::Bool),
    ("@not_strictly_false", Gives::Bool),
    ("_?_:_", Gives::Anything),
    ("_+_", Gives::Anything),
    ("_-_", Gives::Number),
    ("_*_", Gives::Number),
    ("_/_", Gives::Number),
    ("_%_", Gives::Number),
    ("-_", Gives::Number),
    ("_[_]", Gives::Element),
    ("size", Gives::Number),
    ("contains", Gives::Bool),
    ("startsWith", Gives::Bool),
    ("endsWith", Gives::Bool),
    ("matches", Gives::Bool),
    ("int", Gives::Number),
    ("uint", Gives::Number),
    ("double", Gives::Number),
    ("string", Gives::Text),
];

#[derive(Clone, Copy)]
enum Gives {
    Bool,
    Number,
    Text,
    Element,
    Anything,
}

#[derive(Clone, Debug)]
enum Type {
    Bool,
    /// Numbers of all kinds compare with each other; a value of an enum is one.
    Number,
    Text,
    /// Something else that is no bool and has no fields.
    Other,
    Message(MessageDescriptor),
    List(Box<Type>),
    Enum(String),
    Package,
    /// What is a bool or a number where it is set, and null where not.
    Nullable,
    Anything,
}

/// The names of the schema's enums that an expression may use.
pub(super) fn enums() -> impl Iterator<Item = &'static str> {
    static NAMES: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| {
        let of_flow =
            POOL.all_enums().filter(|it| it.parent_message().is_none() && it.package_name() == "flow");
        of_flow.map(|it| it.name().to_owned()).collect()
    });
    NAMES.iter().map(String::as_str)
}

/// The number of an enum's value.
pub(super) fn enum_value(name: &str, value: &str) -> Option<i32> {
    let values = POOL.get_enum_by_name(&format!("flow.{name}"))?;
    values.get_value_by_name(value).map(|it| it.number())
}

/// Checks an expression, and gives the patterns it matches with.
pub(super) fn check(expression: &mut IdedExpr, budget: &Budget) -> Result<HashMap<String, Regex>, String> {
    let mut checker =
        Checker { budget, variables: Vec::new(), patterns: HashMap::new(), nodes: 0, depth: 0, loops: 0 };
    match checker.visit(expression)? {
        Type::Bool | Type::Nullable | Type::Anything => Ok(checker.patterns),
        other => Err(format!("gives {}, not a bool", name_of(&other))),
    }
}

struct Checker<'a> {
    budget: &'a Budget,
    variables: Vec<(String, Type)>,
    patterns: HashMap<String, Regex>,
    nodes: usize,
    depth: u16,
    loops: usize,
}

impl Checker<'_> {
    fn visit(&mut self, node: &mut IdedExpr) -> Result<Type, String> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(format!("has more than {MOST_NODES} parts"));
        }
        if self.depth == DEEPEST {
            return Err(format!("is nested deeper than {DEEPEST}"));
        }
        self.depth += 1;
        let made = self.look_at(node);
        self.depth -= 1;
        made
    }

    fn look_at(&mut self, node: &mut IdedExpr) -> Result<Type, String> {
        match &mut node.expr {
            Expr::Ident(name) => self.ident(name),
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => Type::Number,
                LiteralValue::String(_) => Type::Text,
                LiteralValue::Bytes(_) => Type::Other,
                // Anything may be compared with it.
                LiteralValue::Null => Type::Anything,
            }),
            Expr::Select(select) => {
                let operand = self.visit(&mut select.operand)?;
                let made = self.select(&operand, &select.field)?;
                if !select.test {
                    // A value of an enum is looked up here, and not for each flow.
                    if let Type::Enum(name) = &operand
                        && let Some(number) = enum_value(name, &select.field)
                    {
                        node.expr = Expr::Literal(LiteralValue::Int(CelInt::from(i64::from(number))));
                    }
                    return Ok(made);
                }
                if matches!(operand, Type::Message(_)) {
                    select.field.insert(0, IS_SET);
                }
                Ok(Type::Bool)
            }
            Expr::List(list) => {
                let elements =
                    list.elements.iter_mut().map(|it| self.visit(it)).collect::<Result<Vec<_>, _>>()?;
                Ok(Type::List(Box::new(elements.into_iter().reduce(common).unwrap_or(Type::Anything))))
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(it) => {
                let element = match self.visit(&mut it.iter_range)? {
                    Type::List(element) => *element,
                    Type::Anything => Type::Anything,
                    other => return Err(format!("loops over {}", name_of(&other))),
                };
                self.loops += 1;
                if self.loops > MOST_LOOPS {
                    return Err(format!("has more than {MOST_LOOPS} loops within each other"));
                }
                let start = self.visit(&mut it.accu_init)?;
                let known = self.variables.len();
                self.variables.push((it.accu_var.clone(), start));
                self.variables.push((it.iter_var.clone(), element));
                if let Some(second) = &it.iter_var2 {
                    self.variables.push((second.clone(), Type::Anything));
                }
                self.visit(&mut it.loop_cond)?;
                self.visit(&mut it.loop_step)?;
                let made = self.visit(&mut it.result)?;
                self.variables.truncate(known);
                self.loops -= 1;
                Ok(made)
            }
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.visit(&mut entry.key)?;
                        self.visit(&mut entry.value)?;
                    }
                }
                Ok(Type::Anything)
            }
            Expr::Struct(made) => Err(format!("makes a {}, which this server can't", made.type_name)),
            Expr::Unspecified => Err("has an empty part".to_owned()),
        }
    }

    fn ident(&self, name: &str) -> Result<Type, String> {
        if let Some((_, known)) = self.variables.iter().rev().find(|(known, _)| known == name) {
            return Ok(known.clone());
        }
        match name {
            "_flow" => Ok(Type::Message(message("flow.Flow"))),
            "flow" => Ok(Type::Package),
            _ if enums().any(|known| known == name) => Ok(Type::Enum(name.to_owned())),
            _ => Err(format!("there is no {name:?}; the flow is _flow")),
        }
    }

    fn select(&self, operand: &Type, field: &str) -> Result<Type, String> {
        match operand {
            Type::Message(message) => match message.get_field_by_name(field) {
                Some(field) => field_type(&field),
                None => Err(format!("{} has no field {field:?}", message.full_name())),
            },
            Type::Package if enums().any(|known| known == field) => Ok(Type::Enum(field.to_owned())),
            Type::Package => Err(format!("package flow has no enum {field:?}")),
            Type::Enum(name) => match enum_value(name, field) {
                Some(_) => Ok(Type::Number),
                None => Err(format!("enum {name} has no value {field:?}")),
            },
            Type::Anything => Ok(Type::Anything),
            Type::Bool | Type::Number | Type::Text | Type::Other | Type::List(_) | Type::Nullable => {
                Err(format!("{} has no field {field:?}", name_of(operand)))
            }
        }
    }

    fn call(&mut self, call: &mut cel::common::ast::CallExpr) -> Result<Type, String> {
        let Some((_, gives)) = FUNCTIONS.iter().find(|(known, _)| *known == call.func_name) else {
            return Err(format!("calls {}(), which this server lacks", call.func_name));
        };
        let target = call.target.as_mut().map(|target| self.visit(target)).transpose()?;
        let arguments = call.args.iter_mut().map(|it| self.visit(it)).collect::<Result<Vec<_>, _>>()?;
        if call.func_name == "matches" {
            self.pattern(call.args.last())?;
        }
        compared(&call.func_name, &arguments)?;
        Ok(match gives {
            Gives::Bool => Type::Bool,
            Gives::Number => Type::Number,
            Gives::Text => Type::Text,
            Gives::Anything if call.func_name == "_?_:_" => {
                arguments.into_iter().skip(1).reduce(common).unwrap_or(Type::Anything)
            }
            Gives::Anything => arguments.into_iter().next_back().or(target).unwrap_or(Type::Anything),
            Gives::Element => match arguments.into_iter().next() {
                Some(Type::List(element)) => *element,
                _ => Type::Anything,
            },
        })
    }

    /// A pattern must be written out, so that it is compiled once and its size is bounded here.
    fn pattern(&mut self, argument: Option<&IdedExpr>) -> Result<(), String> {
        let Some(IdedExpr { expr: Expr::Literal(LiteralValue::String(pattern)), .. }) = argument else {
            return Err("matches() takes a pattern that is written out".to_owned());
        };
        let pattern = pattern.inner();
        if self.patterns.contains_key(pattern) {
            return Ok(());
        }
        let made = self.budget.regex(pattern, REGEX_BYTES)?;
        self.patterns.insert(pattern.to_owned(), made);
        Ok(())
    }
}

/// Refuses a comparison that holds for no flow, whatever is in it.
fn compared(function: &str, arguments: &[Type]) -> Result<(), String> {
    let [left, right] = arguments else { return Ok(()) };
    let right = match (function, right) {
        ("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_", right) => right,
        ("@in", Type::List(element)) => element,
        _ => return Ok(()),
    };
    if may_be_equal(left, right) {
        return Ok(());
    }
    Err(format!("compares {} with {}", name_of(left), name_of(right)))
}

fn may_be_equal(left: &Type, right: &Type) -> bool {
    let is_loose = |it: &Type| {
        matches!(it, Type::Anything | Type::Nullable | Type::Other | Type::Enum(_) | Type::Package)
    };
    match (left, right) {
        (left, right) if is_loose(left) || is_loose(right) => true,
        (Type::Message(left), Type::Message(right)) => left == right,
        (Type::List(left), Type::List(right)) => may_be_equal(left, right),
        (left, right) => std::mem::discriminant(left) == std::mem::discriminant(right),
    }
}

/// What both are.
fn common(left: Type, right: Type) -> Type {
    let same = std::mem::discriminant(&left) == std::mem::discriminant(&right) && may_be_equal(&left, &right);
    if same { left } else { Type::Anything }
}

fn field_type(field: &FieldDescriptor) -> Result<Type, String> {
    let single = match field.kind() {
        _ if is_wrapper(field) => Type::Nullable,
        Kind::Message(message) if message.full_name().starts_with("google.protobuf.") => {
            return Err(format!(
                "{:?} is a {}, which this server can't compare",
                field.name(),
                message.full_name()
            ));
        }
        Kind::Message(message) => Type::Message(message),
        Kind::Bool => Type::Bool,
        Kind::String => Type::Text,
        Kind::Bytes => Type::Other,
        _ => Type::Number,
    };
    Ok(if field.is_list() { Type::List(Box::new(single)) } else { single })
}

fn name_of(kind: &Type) -> String {
    match kind {
        Type::Bool => "a bool".to_owned(),
        Type::Number => "a number".to_owned(),
        Type::Text => "a text".to_owned(),
        Type::Other => "bytes".to_owned(),
        Type::Message(message) => format!("a {}", message.full_name()),
        Type::List(_) => "a list".to_owned(),
        Type::Enum(name) => format!("the enum {name}"),
        Type::Package => "the package flow".to_owned(),
        Type::Nullable => "a value or null".to_owned(),
        Type::Anything => "a value".to_owned(),
    }
}
