//! Each table with a tenant_id must keep the rules of the two walls. The catalogue is asked, so a new table needs no
//! edit here; a planted table that breaks them turns the check red.

use emailclient_core::platform::db::migrate;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use tests::database::Database;
use wire::secret::Secret;

const DEFINERS: [&str; 5] = [
    "search_messages",
    "analyze_young_tables",
    "merge_search_index",
    "remove_tenant_trail",
    "remove_tenant_row",
];

/// What of a function that runs as its owner a caller could lead astray: the type of a cast or of a variable that is looked
/// up by its bare name, and a search_path that does not end with pg_temp.
const ASTRAY: &str = r#"
    SELECT p.proname::text || ': ' || w.what AS name FROM pg_proc p
    CROSS JOIN LATERAL (VALUES
      (p.proconfig IS NULL OR NOT EXISTS (SELECT 1 FROM unnest(p.proconfig) c
          WHERE c ~ '^search_path=' AND c ~ '[=,]\s*"?pg_temp"?\s*$'), 'pg_temp is not last in its search_path'),
      (p.prosrc ~ '::(?!\s*pg_catalog\.)', 'a cast to a type without its schema'),
      (p.prosrc ~* '\mcast\s*\(' , 'a cast that this test cannot read: write it with ::'),
      (p.prosrc ~* '\mdeclare\M' AND EXISTS (
          SELECT 1 FROM regexp_split_to_table(substring(p.prosrc FROM '(?i)\mdeclare\M(.*?)\mbegin\M'), ';') d
          WHERE d ~ '\S' AND d !~* '^\s*\w+\s+(constant\s+)?pg_catalog\.'), 'a variable of a type without its schema'),
      (p.prosrc ~* '\m(from|join|update|into)\s+(?!pg_catalog\.|public\.|\()\w' , 'a table without its schema'))
      AS w(broken, what)
    WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef AND w.broken"#;

async fn violations(conn: &mut PgConnection) -> Vec<String> {
    let mut found: Vec<String> = sqlx::query_scalar(ASTRAY).fetch_all(&mut *conn).await.unwrap();
    for (sql, what) in [
        (
            "SELECT c.relname::text AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r','p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)",
            "row-level security is not enabled and forced",
        ),
        (
            "SELECT c.relname::text AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r','p')
               AND NOT EXISTS (SELECT 1 FROM pg_policies p WHERE p.tablename = c.relname AND 'emailclient_app' = ANY (p.roles)
                               AND p.qual LIKE '%app.tenant_id%' AND p.with_check LIKE '%app.tenant_id%')",
            "no policy with check that names app.tenant_id",
        ),
        (
            "SELECT c.relname::text AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
               AND a.attname = CASE c.relname WHEN 'accounts' THEN 'id' ELSE 'account_id' END
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r','p')
               AND NOT EXISTS (SELECT 1 FROM pg_policies p WHERE p.tablename = c.relname AND p.permissive = 'RESTRICTIVE'
                               AND p.roles = '{emailclient_limited}' AND p.cmd = 'ALL'
                               AND p.qual LIKE '%app.account_ids%' AND p.with_check = p.qual)",
            "no policy that keeps to the accounts within reach",
        ),
        (
            "SELECT c.relname::text AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
               AND a.attname = CASE c.relname WHEN 'accounts' THEN 'id' ELSE 'account_id' END
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r','p') AND c.relname NOT IN ('events', 'webhook_deliveries')
               AND NOT EXISTS (SELECT 1 FROM pg_policies p WHERE p.tablename = c.relname AND p.permissive = 'RESTRICTIVE'
                               AND p.roles = '{emailclient_remaining}' AND p.cmd = 'ALL'
                               AND p.qual LIKE '%app.removed_account_ids%' AND p.with_check = p.qual)",
            "no policy that hides accounts which are deleted",
        ),
        (
            "SELECT p.tablename || ': ' || p.policyname AS name FROM pg_policies p
             WHERE p.permissive = 'RESTRICTIVE' AND p.roles NOT IN ('{emailclient_limited}', '{emailclient_remaining}')",
            "a restrictive policy for the application, which all its statements pay for",
        ),
        (
            "SELECT c.relname || ' as ' || a.grantee::regrole AS name FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
             WHERE c.relnamespace = 'public'::regnamespace
             AND a.grantee IN ('emailclient_limited'::regrole, 'emailclient_remaining'::regrole)
             AND NOT has_table_privilege('emailclient_app', c.oid, a.privilege_type)",
            "a role for some transactions may do more than the application",
        ),
        (
            "SELECT c.relname || ' as ' || r.rolname AS name FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
             JOIN pg_roles r ON r.rolname IN ('emailclient_limited', 'emailclient_remaining')
             WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = 'emailclient_app'::regrole
             AND (NOT has_table_privilege(r.rolname, c.oid, a.privilege_type) OR c.relrowsecurity AND NOT EXISTS (
               SELECT 1 FROM pg_policies p WHERE p.tablename = c.relname AND p.policyname = 'tenant' AND r.rolname = ANY (p.roles)))",
            "a role for some transactions may not do what the application does",
        ),
        (
            "SELECT i.indexrelid::regclass::text AS name FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
             JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = 'tenant_id' AND NOT t.attisdropped
             WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique AND i.indkey[0] <> t.attnum",
            "a key or unique index does not begin with tenant_id",
        ),
        (
            "SELECT con.conname::text AS name FROM pg_constraint con JOIN pg_class c ON c.oid = con.conrelid
             JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = 'tenant_id' AND NOT t.attisdropped
             WHERE con.contype = 'f' AND c.relnamespace = 'public'::regnamespace AND con.conkey[1] <> t.attnum",
            "a foreign key does not begin with tenant_id",
        ),
        (
            "SELECT c.relname::text AS name FROM pg_class c WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace
             AND NOT coalesce(c.reloptions::text[] && ARRAY['security_invoker=true','security_invoker=on'], false)",
            "a view without security_invoker",
        ),
        (
            "SELECT grantee || ' on ' || table_name AS name FROM information_schema.role_table_grants
             WHERE table_schema = 'public' AND (grantee = 'PUBLIC' OR (grantee = 'emailclient_search' AND NOT (table_name = 'message_search' AND privilege_type = 'SELECT')))",
            "a grant that nobody should have",
        ),
        (
            "SELECT datname::text AS name FROM pg_database d
             CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
             WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type = 'TEMPORARY'",
            "everybody may make temporary objects",
        ),
        (
            "SELECT r AS name FROM unnest(ARRAY['emailclient_app', 'emailclient_system', 'emailclient_search']) r
             WHERE has_database_privilege(r, current_database(), 'TEMP') OR has_schema_privilege(r, 'public', 'CREATE')",
            "may make objects that others could take for theirs",
        ),
        (
            "SELECT grantee::text AS name FROM information_schema.role_table_grants
             WHERE table_schema = 'public' AND table_name = 'tenants' AND privilege_type IN ('DELETE', 'TRUNCATE')
               AND grantee <> 'emailclient_owner'",
            "may delete a tenant, and with it the audit",
        ),
    ] {
        for row in sqlx::query(sql).fetch_all(&mut *conn).await.unwrap() {
            found.push(format!("{}: {what}", row.get::<String, _>("name")));
        }
    }
    let definers: Vec<String> = sqlx::query_scalar(
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef",
    )
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    found.extend(
        definers
            .into_iter()
            .filter(|f| !DEFINERS.contains(&f.as_str()))
            .map(|f| format!("{f}: SECURITY DEFINER")),
    );
    found
}

#[tokio::test]
async fn every_tenant_table_keeps_the_rules_and_a_planted_one_is_found() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    assert_eq!(violations(&mut conn).await, Vec::<String>::new());
    let tables: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'tenant_id'",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert!(tables >= 23, "the catalogue shows only {tables} tables");

    conn.execute(
        "CREATE TABLE planted (id uuid PRIMARY KEY, tenant_id uuid, account_id uuid REFERENCES tenants(id))",
    )
    .await
    .unwrap();
    let found = violations(&mut conn).await;
    for what in [
        "not enabled and forced",
        "no policy with check",
        "within reach",
        "deleted",
        "unique index",
        "foreign key",
    ] {
        assert!(
            found.iter().any(|v| v.contains("planted") && v.contains(what)),
            "{what} was not found: {found:?}"
        );
    }
    drop(conn);
    database.drop_it().await;
}

/// `emailctl migrate` takes the right to temporary objects away from a database that was just made, or just restored.
#[tokio::test]
async fn a_migrated_database_lets_nobody_make_temporary_objects() {
    let database = Database::empty().await;
    let url = |user: &str| Secret::new(database.url(user));
    migrate::run(&url("postgres"), &url("emailclient_app"), &url("emailclient_system")).await.unwrap();
    let mut conn = database.superuser().await;
    assert_eq!(violations(&mut conn).await, Vec::<String>::new());
    for role in ["emailclient_app", "emailclient_system"] {
        let mut caller = PgConnection::connect(&database.url(role)).await.unwrap();
        for object in ["CREATE DOMAIN pg_temp.uuid AS text", "CREATE TEMP TABLE record (x int)"] {
            let refused = caller.execute(object).await.unwrap_err();
            assert!(refused.to_string().contains("permission denied"), "{role}, {object}: {refused}");
        }
    }
    drop(conn);
    database.drop_it().await;
}

/// What a caller could do who may make temporary objects after all: types of the names that the functions use.
#[tokio::test]
async fn a_type_of_the_callers_is_not_taken_for_another_by_a_function_that_runs_as_its_owner() {
    let database = Database::create().await;
    let mut superuser = database.superuser().await;
    let grant = format!("GRANT TEMPORARY ON DATABASE {} TO PUBLIC", database.name);
    superuser.execute(AssertSqlSafe(grant)).await.unwrap();
    for (role, call) in [
        ("emailclient_system", "SELECT public.analyze_young_tables()"),
        ("emailclient_system", "SELECT public.merge_search_index()"),
        (
            "emailclient_app",
            "SELECT count(*) FROM public.search_messages('x'::tsquery, NULL, NULL, NULL, NULL, 5)",
        ),
    ] {
        let mut caller = PgConnection::connect(&database.url(role)).await.unwrap();
        caller
            .execute(
                "CREATE FUNCTION pg_temp.seize(v text) RETURNS boolean LANGUAGE plpgsql AS $$
                 BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$;",
            )
            .await
            .unwrap();
        for name in [
            "uuid",
            "regnamespace",
            "regclass",
            "int4",
            "integer",
            "record",
            "text",
            "name",
            "tsquery",
            "oid",
        ] {
            let domain =
                format!("CREATE DOMAIN pg_temp.\"{name}\" AS pg_catalog.text CHECK (pg_temp.seize(VALUE))");
            caller.execute(AssertSqlSafe(domain)).await.unwrap();
        }
        for table in ["pg_class", "pg_namespace", "message_search"] {
            let table = format!("CREATE TEMP TABLE {table} (x pg_catalog.int4)");
            caller.execute(AssertSqlSafe(table)).await.unwrap();
        }
        caller.execute("SELECT pg_catalog.set_config('app.tenant_id', 'aaaaaaaa-0000-7000-8000-000000000001', false)").await.unwrap();
        let call = call.replace("'x'::tsquery", "'x'::pg_catalog.tsquery");
        caller.execute(AssertSqlSafe(call.clone())).await.unwrap_or_else(|e| panic!("{call}: {e}"));
    }
    drop(superuser);
    database.drop_it().await;
}

/// Each of the three rules on functions that run as their owner is asked for: one that breaks it is found.
#[tokio::test]
async fn a_planted_function_that_could_be_led_astray_is_found() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    let temp_last = "SET search_path = pg_catalog, pg_temp";
    for (settings, body, what) in [
        ("", "SELECT 1", "pg_temp is not last"),
        ("SET search_path = pg_catalog, public", "SELECT 1", "pg_temp is not last"),
        ("SET search_path = pg_temp, pg_catalog", "SELECT 1", "pg_temp is not last"),
        (temp_last, "SELECT '1'::int", "a cast to a type"),
        (temp_last, "SELECT cast('1' AS int)", "a cast that this test cannot read"),
        (
            "SET search_path = public, pg_temp",
            "SELECT count(*)::pg_catalog.int4 FROM tenants",
            "a table without its schema",
        ),
    ] {
        let plant = format!(
            "CREATE OR REPLACE FUNCTION planted() RETURNS int LANGUAGE sql SECURITY DEFINER {settings} AS $$ {body} $$"
        );
        conn.execute(AssertSqlSafe(plant)).await.unwrap();
        let found = violations(&mut conn).await;
        assert!(found.iter().any(|v| v.contains("planted") && v.contains(what)), "{body}: {found:?}");
    }
    conn.execute(
        "CREATE OR REPLACE FUNCTION planted() RETURNS int LANGUAGE plpgsql SECURITY DEFINER
         SET search_path = pg_catalog, pg_temp AS $$ DECLARE n int := 0; BEGIN RETURN n; END $$",
    )
    .await
    .unwrap();
    let found = violations(&mut conn).await;
    assert!(found.iter().any(|v| v.contains("planted: a variable of a type")), "{found:?}");
    drop(conn);
    database.drop_it().await;
}
