//! Reads tokens into a syntax tree: the stream of tokens and the statements. Expressions are in `expression`.

mod expression;
mod postfix;
mod statement;

use super::error::{JinjaError, Result};
use super::lexer::{self, Placed, Token};
use super::syntax::{Node, SpecialNames};

/// Most levels of nested expressions and blocks, and most operators in a row. Deeper ones would exhaust the stack.
const NESTING_MAX: usize = 120;

pub(super) struct Parser {
    tokens: Vec<Placed>,
    position: usize,
    depth: usize,
    /// Loops around the current statement, within the same macro.
    loops: usize,
    /// Special names that the current macro names.
    names: SpecialNames,
    /// `true` inside conditions, where jinja2 looks filters up only when they are used.
    is_lazy: bool,
}

/// Reads a template.
pub(super) fn parse(source: &str) -> Result<Vec<Node>> {
    let mut parser = Parser {
        tokens: lexer::tokens(source)?,
        position: 0,
        depth: 0,
        loops: 0,
        names: SpecialNames::default(),
        is_lazy: false,
    };
    parser.nodes(&[])
}

impl Parser {
    fn token(&self) -> &Token {
        &self.tokens[self.position].token
    }

    fn following(&self) -> &Token {
        let next = (self.position + 1).min(self.tokens.len() - 1);
        &self.tokens[next].token
    }

    fn line(&self) -> usize {
        self.tokens[self.position].line
    }

    fn advance(&mut self) -> Token {
        let token = self.token().clone();
        self.position = (self.position + 1).min(self.tokens.len() - 1);
        token
    }

    fn fail<T>(&self, reason: impl Into<String>) -> Result<T> {
        Err(JinjaError::Syntax { line: self.line(), reason: reason.into() })
    }

    fn fail_unexpected<T>(&self, expected: &str) -> Result<T> {
        self.fail(format!("expected {expected}, got {}", description(self.token())))
    }

    fn is_operator(&self, operator: &str) -> bool {
        matches!(self.token(), Token::Operator(found) if *found == operator)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.token(), Token::Name(found) if found == name)
    }

    fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        if found {
            self.advance();
        }
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.advance();
        }
        found
    }

    fn expect_operator(&mut self, operator: &str) -> Result<()> {
        if self.skip_operator(operator) { Ok(()) } else { self.fail_unexpected(operator) }
    }

    fn expect_word(&mut self, name: &str) -> Result<()> {
        if self.skip_name(name) { Ok(()) } else { self.fail_unexpected(name) }
    }

    fn expect_name(&mut self) -> Result<String> {
        match self.token().clone() {
            Token::Name(name) => {
                self.advance();
                Ok(name)
            }
            _ => self.fail_unexpected("a name"),
        }
    }

    fn expect(&mut self, token: &Token) -> Result<()> {
        if self.token() == token {
            self.advance();
            return Ok(());
        }
        self.fail_unexpected(description(token).as_str())
    }

    /// Reads a part one level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= NESTING_MAX {
            return Err(JinjaError::Unsupported(format!(
                "more than {NESTING_MAX} levels of nesting (line {})",
                self.line()
            )));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// Reads the right side of the `count`th operator in a row.
    fn check_chain(&self, count: usize) -> Result<()> {
        if count <= NESTING_MAX {
            return Ok(());
        }
        Err(JinjaError::Unsupported(format!(
            "more than {NESTING_MAX} operators in a row (line {})",
            self.line()
        )))
    }
}

fn description(token: &Token) -> String {
    match token {
        Token::Data(_) => "text".to_owned(),
        Token::VariableBegin => "{{".to_owned(),
        Token::VariableEnd => "}}".to_owned(),
        Token::BlockBegin => "{%".to_owned(),
        Token::BlockEnd => "%}".to_owned(),
        Token::Name(name) => format!("'{name}'"),
        Token::Text(text) => format!("{text:?}"),
        Token::Int(number) => number.to_string(),
        Token::Float(number) => number.to_string(),
        Token::Operator(operator) => format!("'{operator}'"),
        Token::End => "the end of the template".to_owned(),
    }
}
