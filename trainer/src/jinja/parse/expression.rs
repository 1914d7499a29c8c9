//! Expressions, in the order of their precedence.

use super::Parser;
use crate::jinja::error::Result;
use crate::jinja::filters;
use crate::jinja::lexer::Token;
use crate::jinja::syntax::{Arguments, Comparison, Constant, Expr, Operator};
use crate::jinja::tests_of_values;

/// Items separated by commas. A comma behind a single item makes it a list of one.
pub(super) enum Listed<T> {
    One(T),
    Several(Vec<T>),
}

impl Parser {
    /// Reads an expression, or several separated by commas, which are a tuple.
    pub(super) fn tuple(&mut self, with_condition: bool) -> Result<Expr> {
        self.tuple_until(with_condition, &[])
    }

    pub(super) fn tuple_until(&mut self, with_condition: bool, ends: &[&str]) -> Result<Expr> {
        self.tuple_items(with_condition, ends, false)
    }

    fn tuple_items(&mut self, with_condition: bool, ends: &[&str], closed: bool) -> Result<Expr> {
        match self.one_or_several(ends, |parser| parser.expression(with_condition))? {
            Listed::One(item) => Ok(item),
            Listed::Several(items) if closed || !items.is_empty() => Ok(Expr::Tuple(items)),
            Listed::Several(_) => self.fail_unexpected("an expression"),
        }
    }

    /// Reads items separated by commas, up to the end of the tag, a closing bracket or one of the names `ends`.
    pub(super) fn one_or_several<T>(
        &mut self,
        ends: &[&str],
        item: impl Fn(&mut Self) -> Result<T>,
    ) -> Result<Listed<T>> {
        let mut items = Vec::new();
        loop {
            let is_end = matches!(self.token(), Token::BlockEnd | Token::VariableEnd)
                || self.is_operator(")")
                || matches!(self.token(), Token::Name(name) if ends.contains(&name.as_str()));
            if is_end {
                return Ok(Listed::Several(items));
            }
            let item = item(self)?;
            if !self.skip_operator(",") {
                if items.is_empty() {
                    return Ok(Listed::One(item));
                }
                items.push(item);
                return Ok(Listed::Several(items));
            }
            items.push(item);
        }
    }

    pub(super) fn expression(&mut self, with_condition: bool) -> Result<Expr> {
        self.nested(|parser| if with_condition { parser.conditional() } else { parser.or() })
    }

    fn conditional(&mut self) -> Result<Expr> {
        let lazy = self.is_lazy;
        // The value before `if` is looked up lazily too, but it has been read by then.
        let mut then = {
            self.is_lazy = lazy || self.has_condition_ahead();
            let then = self.or();
            self.is_lazy = lazy;
            then?
        };
        let mut count = 0;
        while self.skip_name("if") {
            count += 1;
            self.check_chain(count)?;
            self.is_lazy = true;
            let test = self.or();
            let otherwise = match &test {
                Ok(_) if self.skip_name("else") => Some(self.nested(Self::conditional)),
                _ => None,
            };
            self.is_lazy = lazy;
            then = Expr::Condition {
                test: Box::new(test?),
                then: Box::new(then),
                otherwise: otherwise.transpose()?.map(Box::new),
            };
        }
        Ok(then)
    }

    /// Returns `true` if an `if` follows in the same tag, on the same level of brackets.
    fn has_condition_ahead(&self) -> bool {
        let mut level = 0;
        for placed in &self.tokens[self.position..] {
            match &placed.token {
                Token::Operator("(" | "[" | "{") => level += 1,
                Token::Operator(")" | "]" | "}" | ",") if level == 0 => return false,
                Token::Operator(")" | "]" | "}") => level -= 1,
                Token::Name(name) if name == "if" && level == 0 => return true,
                Token::BlockEnd | Token::VariableEnd | Token::End => return false,
                _ => {}
            }
        }
        false
    }

    fn or(&mut self) -> Result<Expr> {
        let mut left = self.and()?;
        let mut count = 0;
        while self.skip_name("or") {
            count += 1;
            self.check_chain(count)?;
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let mut left = self.not()?;
        let mut count = 0;
        while self.skip_name("and") {
            count += 1;
            self.check_chain(count)?;
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            let inner = self.nested(Self::not)?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut others = Vec::new();
        while let Some(comparison) = self.comparison() {
            others.push((comparison, self.sum()?));
        }
        Ok(if others.is_empty() { first } else { Expr::Compare(Box::new(first), others) })
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let comparison = match self.token() {
            Token::Operator("==") => Comparison::Equal,
            Token::Operator("!=") => Comparison::Unequal,
            Token::Operator("<") => Comparison::Less,
            Token::Operator("<=") => Comparison::LessEqual,
            Token::Operator(">") => Comparison::Greater,
            Token::Operator(">=") => Comparison::GreaterEqual,
            Token::Name(name) if name == "in" => Comparison::In,
            Token::Name(name) if name == "not" => {
                if !matches!(self.following(), Token::Name(next) if next == "in") {
                    return None;
                }
                self.advance();
                Comparison::NotIn
            }
            _ => return None,
        };
        self.advance();
        Some(comparison)
    }

    /// Reads operands joined by operators of the same precedence.
    fn chain(
        &mut self,
        operators: &[(&str, Operator)],
        operand: fn(&mut Self) -> Result<Expr>,
    ) -> Result<Expr> {
        let mut left = operand(self)?;
        let mut count = 0;
        loop {
            let next = operators.iter().find(|(mark, _)| self.is_operator(mark));
            let Some((_, operator)) = next else { return Ok(left) };
            self.advance();
            count += 1;
            self.check_chain(count)?;
            left = Expr::Binary(*operator, Box::new(left), Box::new(operand(self)?));
        }
    }

    fn sum(&mut self) -> Result<Expr> {
        self.chain(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_operator("~") {
            items.push(self.product()?);
        }
        Ok(Expr::Concat(items))
    }

    fn product(&mut self) -> Result<Expr> {
        let operators = [
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::FloorDivide),
            ("%", Operator::Modulo),
        ];
        self.chain(&operators, Self::power)
    }

    fn power(&mut self) -> Result<Expr> {
        self.chain(&[("**", Operator::Power)], |parser| parser.unary(true))
    }

    fn unary(&mut self, with_filter: bool) -> Result<Expr> {
        let node = if self.skip_operator("-") {
            Expr::Negative(Box::new(self.nested(|parser| parser.unary(false))?))
        } else if self.skip_operator("+") {
            Expr::Positive(Box::new(self.nested(|parser| parser.unary(false))?))
        } else {
            self.primary()?
        };
        let node = self.postfix(node)?;
        if with_filter { self.filters_and_tests(node) } else { Ok(node) }
    }

    fn primary(&mut self) -> Result<Expr> {
        match self.token().clone() {
            Token::Name(name) => {
                self.advance();
                Ok(match name.as_str() {
                    "true" | "True" => Expr::Constant(Constant::Bool(true)),
                    "false" | "False" => Expr::Constant(Constant::Bool(false)),
                    "none" | "None" => Expr::Constant(Constant::None),
                    _ => {
                        self.names.caller |= name == "caller";
                        self.names.kwargs |= name == "kwargs";
                        self.names.varargs |= name == "varargs";
                        Expr::Name(name)
                    }
                })
            }
            Token::Text(mut text) => {
                self.advance();
                while let Token::Text(more) = self.token() {
                    text.push_str(more);
                    self.advance();
                }
                Ok(Expr::Constant(Constant::Text(text)))
            }
            Token::Int(number) => {
                self.advance();
                Ok(Expr::Constant(Constant::Int(number)))
            }
            Token::Float(number) => {
                self.advance();
                Ok(Expr::Constant(Constant::Float(number)))
            }
            Token::Operator("(") => {
                self.advance();
                let inner = self.nested(|parser| parser.tuple_items(true, &[], true))?;
                self.expect_operator(")")?;
                Ok(inner)
            }
            Token::Operator("[") => {
                self.advance();
                Ok(Expr::List(self.items("]", |parser| parser.expression(true))?))
            }
            Token::Operator("{") => {
                self.advance();
                let pair = |parser: &mut Self| {
                    let key = parser.expression(true)?;
                    parser.expect_operator(":")?;
                    Ok((key, parser.expression(true)?))
                };
                Ok(Expr::Dict(self.items("}", pair)?))
            }
            _ => self.fail_unexpected("an expression"),
        }
    }

    /// Reads items separated by commas, and the closing bracket.
    fn items<T>(&mut self, close: &str, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.is_operator(close) {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.is_operator(close) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        self.expect_operator(close)?;
        Ok(items)
    }

    fn filters_and_tests(&mut self, node: Expr) -> Result<Expr> {
        let mut node = node;
        let mut count = 0;
        loop {
            node = match self.token() {
                Token::Operator("|") => self.filters(Some(node), false)?,
                Token::Name(name) if name == "is" => self.test(node)?,
                Token::Operator("(") => Expr::Call(Box::new(node), Box::new(self.arguments()?)),
                _ => return Ok(node),
            };
            count += 1;
            self.check_chain(count)?;
        }
    }

    /// Reads filters; the first one without its `|` if `is_inline`.
    pub(super) fn filters(&mut self, node: Option<Expr>, is_inline: bool) -> Result<Expr> {
        let mut node = node;
        let mut is_inline = is_inline;
        let mut count = 0;
        while is_inline || self.skip_operator("|") {
            is_inline = false;
            count += 1;
            self.check_chain(count)?;
            let name = self.dotted_name()?;
            if !filters::is_filter(&name) && !self.is_lazy {
                return self.fail(format!("no filter named '{name}'"));
            }
            let arguments =
                if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
            node = Some(Expr::Filter(node.map(Box::new), name, Box::new(arguments)));
        }
        node.map_or_else(|| self.fail_unexpected("a filter"), Ok)
    }

    fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.expect_name()?;
        while self.skip_operator(".") {
            name = format!("{name}.{}", self.expect_name()?);
        }
        Ok(name)
    }

    fn test(&mut self, node: Expr) -> Result<Expr> {
        self.advance();
        let is_negated = self.skip_name("not");
        let name = self.dotted_name()?;
        if !tests_of_values::is_test(&name) && !self.is_lazy {
            return self.fail(format!("no test named '{name}'"));
        }
        let mut arguments = Arguments::default();
        let has_argument = match self.token() {
            Token::Name(name) => !["else", "or", "and"].contains(&name.as_str()),
            Token::Text(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Operator(mark) => ["[", "{"].contains(mark),
            _ => false,
        };
        if self.is_operator("(") {
            arguments = self.arguments()?;
        } else if has_argument {
            if self.is_name("is") {
                return self.fail("tests cannot be chained with 'is'");
            }
            let argument = self.primary()?;
            arguments.positional.push(self.postfix(argument)?);
        }
        let test = Expr::Test(Box::new(node), name, Box::new(arguments));
        Ok(if is_negated { Expr::Not(Box::new(test)) } else { test })
    }
}
