-- name: account_of_person
-- Whose account this is, and how that person is.
SELECT a.id, a.person, a.name, p.state FROM account a JOIN person p ON p.id = a.person
WHERE a.platform = ?1 AND a.namespace = ?2 AND a.user_id = ?3;
