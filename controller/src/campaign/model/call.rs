//! One call: looked for in the journal, written down with the most it may cost, made, and its reply written down. A reply
//! that is in the journal is never paid for again. The request that is journalled holds no key.

use kit::task::CancellationToken;
use serde_json::{Value, json};

use crate::{
    journal::{BudgetError, CallReply, JournalError, MicroUsd, NewCall, TokenUsage, request_digest},
    llm::{Fault, Request, Usage},
};

use crate::telemetry::METRICS;

use super::{super::researcher::ResearchError, ModelResearcher};

/// What came back.
pub(super) enum Answer {
    /// A value of the right shape, as far as the provider's subset can say.
    Value {
        /// The answer.
        value: Value,
        /// As it was written.
        text: String,
    },
    /// Something else, to be sent back.
    Misshapen {
        /// What was received.
        text: String,
        /// The field at fault.
        problem: String,
    },
}

fn journalled(error: JournalError) -> ResearchError {
    ResearchError::Journal(error.to_string())
}

fn tokens(usages: &[Usage]) -> TokenUsage {
    let sum = |pick: fn(&Usage) -> Option<u64>| usages.iter().filter_map(pick).sum();
    TokenUsage {
        input: sum(|u| u.input_uncached),
        output: sum(|u| u.output_total),
        cache_read: sum(|u| u.cache_read),
        cache_write: usages
            .iter()
            .filter_map(|u| Some(u.cache_write_5m? + u.cache_write_1h.unwrap_or(0)))
            .sum(),
    }
}

impl ModelResearcher {
    /// All attempts together; `None` where one of them is unknown.
    fn cost(&self, usages: &[Usage]) -> Option<MicroUsd> {
        let price = self.price.as_ref()?;
        let parts: Option<Vec<u64>> = usages.iter().map(|u| price.cost(u).map(|c| c.0)).collect();
        Some(MicroUsd(parts?.into_iter().sum()))
    }

    /// For whoever watches; the journal has it for good.
    fn count<'a>(&self, purpose: &str, usages: impl IntoIterator<Item = &'a Usage>) {
        let usages: Vec<Usage> = usages.into_iter().copied().collect();
        let TokenUsage { input, output, cache_read, cache_write } = tokens(&usages);
        let kinds =
            [("input", input), ("output", output), ("cache_read", cache_read), ("cache_write", cache_write)];
        METRICS.called(purpose, &kinds, self.cost(&usages).map(|cost| cost.0));
    }

    #[tracing::instrument(name = "model call", skip_all, fields(purpose))]
    pub(super) async fn call(
        &self,
        purpose: &'static str,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<Answer, ResearchError> {
        let messages: Vec<Value> =
            request.messages.iter().map(|m| json!({"role": m.role.as_str(), "text": m.text})).collect();
        let schema = request.schema.as_ref().map(|s| s.json.clone());
        let asked = json!({
            "purpose": purpose,
            "model": self.model.spec().to_string(),
            "system": request.system,
            "messages": messages,
            "schema": schema,
            "max_output_tokens": request.max_output_tokens,
        });
        let stored =
            self.journal.find_reply(self.campaign, request_digest(&asked)).await.map_err(journalled)?;
        if let Some(stored) = stored {
            return Ok(answer_of(&stored.reply));
        }
        // An answer that is cut off is asked for once more with twice as many tokens: both are set aside.
        let prompt = request.prompt_tokens_at_most();
        let output = u64::from(request.max_output_tokens);
        let most = |price: &crate::llm::price::Price| {
            price.most(prompt, output).0 + price.most(prompt, 2 * output).0
        };
        let reserve = MicroUsd(self.price.as_ref().map_or(0, most));
        let new = NewCall {
            purpose: purpose.to_owned(),
            model: self.model.spec().to_string(),
            request: asked,
            reserve,
        };
        let id = match self.journal.begin_call(self.campaign, new).await {
            Ok(id) => id,
            Err(BudgetError::Journal(error)) => return Err(journalled(error)),
            Err(BudgetError::Cost { .. } | BudgetError::Device { .. }) => {
                return Err(ResearchError::Budget { purpose });
            }
        };
        kit::halt::at("controller.model_call");
        let replied = self.model.call(request, cancel, None).await;
        kit::halt::at("controller.reply");
        match &replied {
            Ok(reply) => self.count(purpose, reply.lost.iter().chain([&reply.usage])),
            Err(error) => self.count(purpose, &error.lost),
        }
        match replied {
            Ok(reply) => {
                let value = reply.json.clone().unwrap_or(Value::Null);
                let kept = json!({"value": value, "text": reply.text, "model": reply.model});
                let mut usages = reply.lost.clone();
                usages.push(reply.usage);
                let stored = CallReply {
                    reply: kept,
                    usage: tokens(&usages),
                    cost: self.cost(&usages),
                    attempts: reply.attempts,
                };
                self.journal.finish_call(id, stored).await.map_err(journalled)?;
                Ok(Answer::Value { value, text: reply.text })
            }
            Err(error) => {
                let cost = self.cost(&error.lost);
                if let Some(text) = error.fault.answer() {
                    // It is an answer, and paid for, if not of the shape: kept, and sent back.
                    let problem = error.fault.to_string();
                    let stored = CallReply {
                        reply: json!({"text": text, "problem": problem}),
                        usage: tokens(&error.lost),
                        cost,
                        attempts: error.attempts,
                    };
                    let text = text.to_owned();
                    self.journal.finish_call(id, stored).await.map_err(journalled)?;
                    return Ok(Answer::Misshapen { text, problem });
                }
                self.journal.fail_call(id, &error.to_string(), cost).await.map_err(journalled)?;
                Err(match error.fault {
                    Fault::Cancelled => ResearchError::Cancelled,
                    fault => ResearchError::Provider { purpose, detail: format!("{}: {fault}", error.spec) },
                })
            }
        }
    }
}

fn answer_of(stored: &Value) -> Answer {
    let text = stored["text"].as_str().unwrap_or_default().to_owned();
    match stored["problem"].as_str() {
        Some(problem) => Answer::Misshapen { text, problem: problem.to_owned() },
        None => Answer::Value { value: stored["value"].clone(), text },
    }
}
