//! Each table with a tenant_id must keep the rules of the two walls. The catalogue is asked, so a new table needs no
//! edit here; a planted table that breaks them turns the check red.

use sqlx::postgres::PgConnection;
use sqlx::{Executor as _, Row as _};
use tests::database::Database;

const DEFINERS: [&str; 3] = ["search_messages", "analyze_young_tables", "merge_search_index"];

async fn violations(conn: &mut PgConnection) -> Vec<String> {
    let mut found = vec![];
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
    for what in ["not enabled and forced", "no policy", "unique index", "foreign key"] {
        assert!(
            found.iter().any(|v| v.contains("planted") && v.contains(what)),
            "{what} was not found: {found:?}"
        );
    }
    drop(conn);
    database.drop_it().await;
}
