-- The roles and databases of contentshop, for a fresh PostgreSQL 15 or later; run by a superuser:
--
--   psql -v ON_ERROR_STOP=1 -v owner_password=… -v app_password=… -v duty_password=… -f roles.sql
--
-- Three roles per service. <service>_owner owns the tables and migrates; <service>_app serves teams
-- and sees only the rows of the teams its transaction names; <service>_duty does background work
-- and workers' calls for all teams. Neither app nor duty owns anything, so row-level security holds
-- for both. Passwords come as psql variables, from files in docker-compose.

\set ON_ERROR_STOP on

SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', service || '_' || kind, password)
FROM unnest(ARRAY['enqueue', 'assets', 'packager']) AS service,
     (VALUES ('owner', :'owner_password'), ('app', :'app_password'), ('duty', :'duty_password'))
       AS roles (kind, password)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = service || '_' || kind)
\gexec

SELECT format('CREATE DATABASE %I OWNER %I', service, service || '_owner')
FROM unnest(ARRAY['enqueue', 'assets', 'packager']) AS service
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = service)
\gexec

SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', service)
FROM unnest(ARRAY['enqueue', 'assets', 'packager']) AS service
\gexec

SELECT format('GRANT CONNECT ON DATABASE %I TO %I', service, service || '_' || kind)
FROM unnest(ARRAY['enqueue', 'assets', 'packager']) AS service,
     unnest(ARRAY['app', 'duty']) AS kind
\gexec
