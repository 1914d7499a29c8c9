//! What follows a value: attributes, subscripts and calls.

use super::Parser;
use crate::jinja::error::{JinjaError, Result};
use crate::jinja::lexer::Token;
use crate::jinja::syntax::{Arguments, Constant, Expr};

/// One element of a subscript: an expression or a slice.
enum Subscript {
    Index(Expr),
    Slice(Box<[Option<Expr>; 3]>),
}

impl Parser {
    pub(super) fn postfix(&mut self, node: Expr) -> Result<Expr> {
        let mut node = node;
        let mut count = 0;
        loop {
            node = match self.token() {
                Token::Operator(".") => self.attribute(node)?,
                Token::Operator("[") => self.subscript(node)?,
                Token::Operator("(") => Expr::Call(Box::new(node), Box::new(self.arguments()?)),
                _ => return Ok(node),
            };
            count += 1;
            self.check_chain(count)?;
        }
    }

    fn attribute(&mut self, node: Expr) -> Result<Expr> {
        self.advance();
        match self.advance() {
            Token::Name(name) => Ok(Expr::Attribute(Box::new(node), name)),
            Token::Int(index) => {
                Ok(Expr::Item(Box::new(node), Box::new(Expr::Constant(Constant::Int(index)))))
            }
            _ => self.fail("expected a name or a number after '.'"),
        }
    }

    fn subscript(&mut self, node: Expr) -> Result<Expr> {
        self.advance();
        let mut items = Vec::new();
        while !self.is_operator("]") {
            if !items.is_empty() {
                self.expect_operator(",")?;
            }
            items.push(self.subscribed()?);
        }
        self.expect_operator("]")?;
        let node = Box::new(node);
        if items.len() == 1 {
            return Ok(match items.remove(0) {
                Subscript::Index(index) => Expr::Item(node, Box::new(index)),
                Subscript::Slice(parts) => Expr::Slice(node, parts),
            });
        }
        let mut indices = Vec::new();
        for item in items {
            match item {
                Subscript::Index(index) => indices.push(index),
                Subscript::Slice(_) => {
                    let reason = format!("several slices in one subscript (line {})", self.line());
                    return Err(JinjaError::Unsupported(reason));
                }
            }
        }
        Ok(Expr::Item(node, Box::new(Expr::Tuple(indices))))
    }

    fn subscribed(&mut self) -> Result<Subscript> {
        let mut parts = [None, None, None];
        if !self.is_operator(":") {
            let index = self.expression(true)?;
            if !self.is_operator(":") {
                return Ok(Subscript::Index(index));
            }
            parts[0] = Some(index);
        }
        for part in &mut parts[1..] {
            if !self.skip_operator(":") {
                break;
            }
            if !(self.is_operator(":") || self.is_operator("]") || self.is_operator(",")) {
                *part = Some(self.expression(true)?);
            }
        }
        Ok(Subscript::Slice(Box::new(parts)))
    }

    pub(super) fn arguments(&mut self) -> Result<Arguments> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        let mut needs_comma = false;
        let reason = "invalid syntax for a call";
        while !self.is_operator(")") {
            if needs_comma {
                self.expect_operator(",")?;
                if self.is_operator(")") {
                    break;
                }
            }
            needs_comma = true;
            let has_spread = arguments.spread.is_some() || arguments.spread_named.is_some();
            if self.skip_operator("*") {
                if has_spread {
                    return self.fail(reason);
                }
                arguments.spread = Some(self.expression(true)?);
            } else if self.skip_operator("**") {
                if arguments.spread_named.is_some() {
                    return self.fail(reason);
                }
                arguments.spread_named = Some(self.expression(true)?);
            } else if matches!(self.token(), Token::Name(_))
                && *self.following() == Token::Operator("=")
            {
                if arguments.spread_named.is_some() {
                    return self.fail(reason);
                }
                let name = self.expect_name()?;
                self.advance();
                if arguments.named.iter().any(|(known, _)| *known == name) {
                    return self.fail(format!("keyword argument repeated: {name}"));
                }
                arguments.named.push((name, self.expression(true)?));
            } else {
                if has_spread || !arguments.named.is_empty() {
                    return self.fail(reason);
                }
                arguments.positional.push(self.expression(true)?);
            }
        }
        self.expect_operator(")")?;
        Ok(arguments)
    }
}
