-- When an operation ended, by which old ones are dropped; what it was on, by which they are listed.
ALTER TABLE operations ADD COLUMN ended_at TEXT;
ALTER TABLE operations ADD COLUMN kind TEXT NOT NULL DEFAULT '';
ALTER TABLE operations ADD COLUMN subject TEXT NOT NULL DEFAULT '';

UPDATE operations SET
    ended_at = json_extract(record, '$.finished_at'),
    kind = json_extract(record, '$.kind'),
    subject = json_extract(record, '$.subject');
