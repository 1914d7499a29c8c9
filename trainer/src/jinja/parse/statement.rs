//! Statements: everything between `{%` and `%}`.

use std::sync::Arc;

use super::Parser;
use super::expression::Listed;
use crate::jinja::error::{JinjaError, Result};
use crate::jinja::lexer::Token;
use crate::jinja::syntax::{Expr, For, MacroDefinition, Node, SpecialNames, Target};

/// Statements that load other templates or depend on them.
const OTHER_TEMPLATES: [&str; 5] = ["extends", "include", "import", "from", "block"];

impl Parser {
    /// Reads nodes up to a tag that begins with one of `ends`, whose name is the next token then, or up to the
    /// end of the template if there are none.
    pub(super) fn nodes(&mut self, ends: &[&str]) -> Result<Vec<Node>> {
        self.nested(|parser| parser.nodes_until(ends))
    }

    fn nodes_until(&mut self, ends: &[&str]) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            let line = self.line();
            match self.advance() {
                Token::Data(text) => nodes.push(Node::Text(text)),
                Token::VariableBegin => {
                    let value = self.tuple(true)?;
                    self.expect(&Token::VariableEnd)?;
                    nodes.push(Node::Output(line, value));
                }
                Token::BlockBegin => {
                    if let Token::Name(name) = self.token()
                        && ends.contains(&name.as_str())
                    {
                        return Ok(nodes);
                    }
                    self.statement(&mut nodes)?;
                    self.expect(&Token::BlockEnd)?;
                }
                Token::End if ends.is_empty() => return Ok(nodes),
                Token::End => {
                    let reason =
                        format!("unexpected end of the template; expected {}", ends.join(" or "));
                    return self.fail(reason);
                }
                _ => return self.fail("unexpected token"),
            }
        }
    }

    /// Reads the end of a tag and nodes up to one of `ends`; their name is the next token.
    fn body(&mut self, ends: &[&str]) -> Result<Vec<Node>> {
        self.skip_operator(":");
        self.expect(&Token::BlockEnd)?;
        self.nodes(ends)
    }

    /// Reads a body up to `end`, which is consumed.
    fn whole_body(&mut self, end: &str) -> Result<Vec<Node>> {
        let body = self.body(&[end])?;
        self.advance();
        Ok(body)
    }

    fn statement(&mut self, nodes: &mut Vec<Node>) -> Result<()> {
        let line = self.line();
        let Token::Name(tag) = self.token().clone() else {
            return self.fail("tag name expected");
        };
        if OTHER_TEMPLATES.contains(&tag.as_str()) || tag == "autoescape" {
            return Err(JinjaError::Unsupported(format!("the tag {tag} (line {line})")));
        }
        if !["call", "filter", "print"].contains(&tag.as_str()) {
            self.advance();
        }
        let node = match tag.as_str() {
            "for" => self.for_loop(line)?,
            "if" => self.condition(line)?,
            "set" => self.set(line)?,
            "with" => self.with(line)?,
            "macro" => self.macro_definition()?,
            "call" => self.call_block(line)?,
            "filter" => {
                self.advance();
                let filter = self.filters(None, true)?;
                Node::FilterBlock(line, filter, self.whole_body("endfilter")?)
            }
            "print" => {
                self.advance();
                while *self.token() != Token::BlockEnd {
                    nodes.push(Node::Output(line, self.expression(true)?));
                    if *self.token() != Token::BlockEnd {
                        self.expect_operator(",")?;
                    }
                }
                return Ok(());
            }
            "generation" => {
                let loops = std::mem::take(&mut self.loops);
                let body = self.whole_body("endgeneration")?;
                self.loops = loops;
                Node::Generation(body)
            }
            "break" | "continue" if self.loops == 0 => {
                return self.fail(format!("'{tag}' outside of a loop"));
            }
            "break" => Node::Break,
            "continue" => Node::Continue,
            _ => return self.fail(format!("unknown tag '{tag}'")),
        };
        nodes.push(node);
        Ok(())
    }

    fn for_loop(&mut self, line: usize) -> Result<Node> {
        let target = self.target(false, &["in"])?;
        self.expect_word("in")?;
        let iterable = self.tuple_until(false, &["recursive"])?;
        let condition = if self.skip_name("if") { Some(self.expression(true)?) } else { None };
        let is_recursive = self.skip_name("recursive");
        self.loops += 1;
        let lazy = std::mem::take(&mut self.is_lazy);
        let body = self.body(&["endfor", "else"]);
        self.loops -= 1;
        let body = body?;
        let mut otherwise = Vec::new();
        if self.advance() == Token::Name("else".to_owned()) {
            otherwise = self.whole_body("endfor")?;
        }
        self.is_lazy = lazy;
        let parsed = For { line, target, iterable, condition, is_recursive, body, otherwise };
        Ok(Node::For(Arc::new(parsed)))
    }

    fn condition(&mut self, line: usize) -> Result<Node> {
        let lazy = std::mem::replace(&mut self.is_lazy, true);
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let test = self.tuple_until(false, &[])?;
            branches.push((test, self.body(&["elif", "else", "endif"])?));
            match self.advance() {
                Token::Name(name) if name == "elif" => {}
                Token::Name(name) if name == "else" => {
                    otherwise = self.whole_body("endif")?;
                    break;
                }
                _ => break,
            }
        }
        self.is_lazy = lazy;
        Ok(Node::If(line, branches, otherwise))
    }

    fn set(&mut self, line: usize) -> Result<Node> {
        let target = self.target(true, &[])?;
        if self.skip_operator("=") {
            return Ok(Node::Set(line, target, self.tuple(true)?));
        }
        let filter = if self.is_operator("|") { Some(self.filters(None, false)?) } else { None };
        Ok(Node::SetBlock(line, target, filter, self.whole_body("endset")?))
    }

    fn with(&mut self, line: usize) -> Result<Node> {
        let mut values = Vec::new();
        while *self.token() != Token::BlockEnd {
            if !values.is_empty() {
                self.expect_operator(",")?;
            }
            let target = self.target(false, &[])?;
            self.expect_operator("=")?;
            values.push((target, self.expression(true)?));
        }
        Ok(Node::With(line, values, self.whole_body("endwith")?))
    }

    fn macro_definition(&mut self) -> Result<Node> {
        let name = self.expect_name()?;
        if is_constant(&name) {
            return self.fail(format!("cannot assign to '{name}'"));
        }
        let (parameters, defaults) = self.signature()?;
        let (body, names) = self.macro_body("endmacro")?;
        Ok(Node::Macro(Arc::new(MacroDefinition { name, parameters, defaults, body, names })))
    }

    fn call_block(&mut self, line: usize) -> Result<Node> {
        self.advance();
        let (parameters, defaults) =
            if self.is_operator("(") { self.signature()? } else { Default::default() };
        let call = self.expression(true)?;
        if !matches!(call, Expr::Call(..)) {
            return self.fail("expected a call");
        }
        let (body, names) = self.macro_body("endcall")?;
        let name = "caller".to_owned();
        let caller = MacroDefinition { name, parameters, defaults, body, names };
        Ok(Node::CallBlock(line, Arc::new(caller), call))
    }

    /// Reads a body in which loops outside cannot be left.
    fn macro_body(&mut self, end: &str) -> Result<(Vec<Node>, SpecialNames)> {
        let outside = std::mem::take(&mut self.names);
        let loops = std::mem::take(&mut self.loops);
        let lazy = std::mem::take(&mut self.is_lazy);
        let body = self.whole_body(end)?;
        let inside = self.names;
        self.loops = loops;
        self.is_lazy = lazy;
        self.names = SpecialNames {
            caller: outside.caller || inside.caller,
            kwargs: outside.kwargs || inside.kwargs,
            varargs: outside.varargs || inside.varargs,
        };
        Ok((body, inside))
    }

    fn signature(&mut self) -> Result<(Vec<String>, Vec<Expr>)> {
        let (mut parameters, mut defaults) = (Vec::new(), Vec::new());
        self.expect_operator("(")?;
        while !self.is_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            let name = self.expect_name()?;
            if is_constant(&name) {
                return self.fail(format!("cannot assign to '{name}'"));
            }
            if parameters.contains(&name) {
                return self.fail(format!("duplicate parameter '{name}'"));
            }
            parameters.push(name);
            if self.skip_operator("=") {
                defaults.push(self.expression(true)?);
            } else if !defaults.is_empty() {
                return self.fail("a parameter without default follows one with a default");
            }
        }
        self.expect_operator(")")?;
        Ok((parameters, defaults))
    }

    /// Reads one target, or several separated by commas.
    fn target(&mut self, with_attributes: bool, ends: &[&str]) -> Result<Target> {
        match self.one_or_several(ends, |parser| parser.single_target(with_attributes))? {
            Listed::One(target) => Ok(target),
            Listed::Several(targets) if !targets.is_empty() => Ok(Target::Tuple(targets)),
            Listed::Several(_) => self.fail_unexpected("a name"),
        }
    }

    fn single_target(&mut self, with_attributes: bool) -> Result<Target> {
        if self.is_operator("(") {
            return self.nested(|parser| {
                parser.advance();
                let target = parser.target(with_attributes, &[])?;
                parser.expect_operator(")")?;
                Ok(target)
            });
        }
        let name = self.expect_name()?;
        if is_constant(&name) {
            return self.fail(format!("cannot assign to '{name}'"));
        }
        if with_attributes && self.skip_operator(".") {
            return Ok(Target::Attribute(name, self.expect_name()?));
        }
        Ok(Target::Name(name))
    }
}

/// Returns `true` for the names of constants, to which nothing is assigned.
fn is_constant(name: &str) -> bool {
    ["true", "false", "none", "True", "False", "None"].contains(&name)
}
