-- Threads are found by their first message. A message of the web chat may have choices: `prompt` is what tabs see of them, as JSON.
ALTER TABLE web_message ADD COLUMN prompt_id TEXT;
ALTER TABLE web_message ADD COLUMN prompt TEXT;

CREATE INDEX web_message_of_thread ON web_message (conversation, thread) WHERE thread IS NOT NULL;
CREATE INDEX web_message_prompt ON web_message (conversation, prompt_id) WHERE prompt_id IS NOT NULL;
