//! A batch of messages with a cursor: what the handler has taken, what is left, and who is to
//! blame when the handler panics in between.

use arrayvec::ArrayVec;

use crate::MAX_BATCH;
use crate::context::Context;
use crate::id::SessionId;
use crate::message::Message;

/// The messages of a batch. Those before the cursor are taken.
pub(crate) struct Messages<'t> {
    slots: ArrayVec<Option<Message<'t>>, MAX_BATCH>,
    cursor: usize,
    /// The one that the handler touched last, by taking it or by looking at it.
    touched: Option<SessionId>,
}

impl<'t> Messages<'t> {
    pub(crate) fn new() -> Self {
        Messages { slots: ArrayVec::new(), cursor: 0, touched: None }
    }

    #[inline]
    pub(crate) fn push(&mut self, message: Message<'t>) {
        self.slots.push(Some(message));
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.cursor = 0;
        self.touched = None;
    }
}

/// Messages of one or more sessions, in order for each session.
pub struct Batch<'b, 't, S> {
    pub(crate) messages: &'b mut Messages<'t>,
    pub(crate) context: Context<'b, 't, S>,
}

impl<'b, 't, S> Batch<'b, 't, S> {
    /// How many messages are left.
    pub fn len(&self) -> usize {
        self.messages.slots.len() - self.messages.cursor
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next message, with the means to answer.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "it lends the context, an Iterator can't")]
    pub fn next(&mut self) -> Option<(Message<'t>, &mut Context<'b, 't, S>)> {
        let messages = &mut *self.messages;
        let message = messages.slots.get_mut(messages.cursor)?.take()?;
        messages.cursor += 1;
        messages.touched = Some(message.session);
        self.context.replying_to = Some(message.session);
        Some((message, &mut self.context))
    }

    /// Looks at what is left, across sessions, without taking it.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Message<'t>> {
        let Messages { slots, cursor, touched } = &mut *self.messages;
        slots[*cursor..].iter_mut().flatten().inspect(|m| *touched = Some(m.session))
    }

    /// What a handler does apart from a message.
    pub fn context(&mut self) -> &mut Context<'b, 't, S> {
        &mut self.context
    }

    /// The session whose message was touched last: the one to blame when the handler panicked.
    /// Where none was, the next message is taken off, so that offering the batch again ends.
    pub(crate) fn blame(&mut self) -> Option<SessionId> {
        let messages = &mut *self.messages;
        if let Some(session) = messages.touched.take() {
            // A message that was only looked at would bring the panic again: its session is to be
            // closed, so its messages go.
            for slot in &mut messages.slots[messages.cursor..] {
                if slot.as_ref().is_some_and(|m| m.session == session) {
                    *slot = None;
                }
            }
            messages.slots.retain({
                let mut index = 0;
                let cursor = messages.cursor;
                move |slot| {
                    index += 1;
                    index <= cursor || slot.is_some()
                }
            });
            return Some(session);
        }
        self.next().map(|(message, _)| message.session)
    }
}
