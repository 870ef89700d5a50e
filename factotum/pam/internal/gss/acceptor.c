/*
 * The acceptor's use of MIT Kerberos. What needs root's rights, the host's keys and its
 * name, is had before main, as long as there is one thread; then the process confines
 * itself for good (confine.c), and from then on it reads what strangers send.
 */
#include "library.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct p9_gss *g;
static const struct p9_krb5 *k;
static krb5_context kerberos;
static char not_ready[512]; /* why no token can be accepted, or "" */
static char keytab_name[256];
static gss_cred_id_t host_keys = GSS_C_NO_CREDENTIAL;
static gss_ctx_id_t context = GSS_C_NO_CONTEXT;
static gss_cred_id_t delegated = GSS_C_NO_CREDENTIAL;
static gss_buffer_desc client = GSS_C_EMPTY_BUFFER;
static OM_uint32 established; /* flags of the context, once it is */

static const gss_OID_desc krb5_mechanism = {9, "\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"}; /* RFC 1964, section 1 */
static const gss_OID_desc hostbased_service = {10, "\x2a\x86\x48\x86\xf7\x12\x01\x02\x01\x04"}; /* RFC 2743, section 4.1 */

/* What gss_acquire_cred_from(3) takes keys from, see cred_store of MIT's "Developing with GSSAPI". */
#define COPY "MEMORY:host"
static const gss_key_value_element_desc sources[] = {
	{"keytab", COPY},
	/*
	 * A token that is sent twice is of no use: its sender must make a MIC over this
	 * session's id (RFC 4462, section 3.5). So nobody has to remember it. The variable
	 * of the environment for this has no effect where SELinux gives this process a
	 * domain of its own: see AT_SECURE of getauxval(3).
	 */
	{"rcache", "none:"},
};
static const gss_key_value_set_desc store = {2, (gss_key_value_element_desc *)sources};

/* gss_problem writes what was done and the library's words for its failure. */
static void gss_problem(const char *doing, OM_uint32 major, OM_uint32 minor, char *problem, size_t size)
{
	gss_buffer_desc general = GSS_C_EMPTY_BUFFER, special = GSS_C_EMPTY_BUFFER;
	OM_uint32 more = 0, ignored;

	g->gss_display_status(&ignored, major, GSS_C_GSS_CODE, GSS_C_NO_OID, &more, &general);
	more = 0;
	g->gss_display_status(&ignored, minor, GSS_C_MECH_CODE, (gss_OID)&krb5_mechanism, &more, &special);
	snprintf(problem, size, "%s: %.*s: %.*s", doing, (int)general.length, (char *)general.value, (int)special.length, (char *)special.value);
	g->gss_release_buffer(&ignored, &general);
	g->gss_release_buffer(&ignored, &special);
}

/*
 * copy_keys copies the host's keytab into memory, where the library finds it without
 * root's rights.
 */
static int copy_keys(void)
{
	krb5_keytab from, to;
	krb5_kt_cursor at;
	krb5_keytab_entry entry;
	krb5_error_code e;
	int n = 0;

	e = k->krb5_kt_default_name(kerberos, keytab_name, sizeof keytab_name);
	if (e == 0)
		e = k->krb5_kt_default(kerberos, &from);
	if (e == 0)
		e = k->krb5_kt_resolve(kerberos, COPY, &to);
	if (e == 0)
		e = k->krb5_kt_start_seq_get(kerberos, from, &at);
	if (e != 0) {
		p9_krb5_problem(k, kerberos, e, "the keytab", not_ready, sizeof not_ready);
		return -1;
	}
	while (e == 0 && (e = k->krb5_kt_next_entry(kerberos, from, &entry, &at)) == 0) {
		e = k->krb5_kt_add_entry(kerberos, to, &entry);
		k->krb5_free_keytab_entry_contents(kerberos, &entry);
		n += e == 0;
	}
	k->krb5_kt_end_seq_get(kerberos, from, &at);
	k->krb5_kt_close(kerberos, from); /* the copy is there as long as somebody has it open */
	if (e != KRB5_KT_END || n == 0) {
		if (e == KRB5_KT_END)
			snprintf(not_ready, sizeof not_ready, "the keytab %s is empty", keytab_name);
		else
			p9_krb5_problem(k, kerberos, e, "the keytab", not_ready, sizeof not_ready);
		return -1;
	}
	return 0;
}

/*
 * take_keys loads the library and takes the keys of host@HOSTNAME, or with any of every
 * name (GSSAPIStrictAcceptorCheck of sshd_config(5)).
 */
static void take_keys(int any)
{
	char service[5 + 256] = "host@";
	gss_buffer_desc text = {0, service};
	gss_name_t name = GSS_C_NO_NAME;
	gss_OID_set_desc mechanisms = {1, (gss_OID)&krb5_mechanism};
	OM_uint32 major, minor, ignored;
	krb5_error_code e;

	g = p9_load_gss(not_ready, sizeof not_ready);
	if (g == NULL)
		return;
	k = p9_load_krb5(not_ready, sizeof not_ready);
	if (k == NULL)
		return;
	e = k->krb5_init_context(&kerberos);
	if (e != 0) {
		p9_krb5_problem(k, NULL, e, "krb5.conf", not_ready, sizeof not_ready);
		return;
	}
	if (copy_keys() != 0)
		return;
	if (!any) {
		if (gethostname(service + 5, sizeof service - 6) != 0) {
			snprintf(not_ready, sizeof not_ready, "gethostname: %m");
			return;
		}
		text.length = strlen(service);
		major = g->gss_import_name(&minor, &text, (gss_OID)&hostbased_service, &name);
		if (GSS_ERROR(major)) {
			gss_problem(service, major, minor, not_ready, sizeof not_ready);
			return;
		}
	}
	major = g->gss_acquire_cred_from(&minor, name, GSS_C_INDEFINITE, &mechanisms, GSS_C_ACCEPT, &store, &host_keys, NULL, NULL);
	if (GSS_ERROR(major))
		gss_problem(any ? keytab_name : service, major, minor, not_ready, sizeof not_ready);
	if (name != GSS_C_NO_NAME)
		g->gss_release_name(&ignored, &name);
}

/*
 * before_main makes of factotum-pam, where its arguments are "gss" and "strict" or "any",
 * an acceptor. The C library calls it before there are other threads, which would keep
 * rights.
 */
__attribute__((constructor)) static void before_main(int argc, char **argv)
{
	if (argc != 3 || strcmp(argv[1], "gss") != 0)
		return;
	take_keys(strcmp(argv[2], "any") == 0);
	if (p9_confine() != 0) {
		dprintf(2, "factotum-pam: the acceptor of GSSAPI cannot give up its rights: %m\n");
		_exit(1);
	}
}

int p9_ready(char *problem, size_t size)
{
	snprintf(problem, size, "%s", not_ready);
	return not_ready[0] == '\0';
}

/*
 * p9_accept takes a token. It returns 1 once the context is established, 0 where another
 * token must follow, and -1 for no. out is what the client is to get; it is the caller's.
 */
int p9_accept(void *token, size_t length, void **out, size_t *out_length, char *problem, size_t size)
{
	gss_buffer_desc in = {length, token}, answer = GSS_C_EMPTY_BUFFER;
	gss_name_t name = GSS_C_NO_NAME;
	gss_OID mechanism = GSS_C_NO_OID, type = GSS_C_NO_OID;
	OM_uint32 major, minor, ignored, flags = 0;

	major = g->gss_accept_sec_context(&minor, &context, host_keys, &in, GSS_C_NO_CHANNEL_BINDINGS, &name, &mechanism, &answer, &flags, NULL, &delegated);
	if (!GSS_ERROR(major) && answer.length > 0) {
		*out = malloc(answer.length);
		if (*out != NULL) {
			memcpy(*out, answer.value, answer.length);
			*out_length = answer.length;
		}
	}
	g->gss_release_buffer(&ignored, &answer);
	if (GSS_ERROR(major)) {
		gss_problem("the token", major, minor, problem, size);
		return -1;
	}
	if (major & GSS_S_CONTINUE_NEEDED)
		return 0;
	if (mechanism == GSS_C_NO_OID || mechanism->length != krb5_mechanism.length || memcmp(mechanism->elements, krb5_mechanism.elements, mechanism->length) != 0) {
		snprintf(problem, size, "the mechanism is not Kerberos");
		return -1;
	}
	if (!(flags & GSS_C_INTEG_FLAG) || (flags & GSS_C_ANON_FLAG)) {
		snprintf(problem, size, "the context is without integrity, or of nobody");
		return -1;
	}
	major = g->gss_display_name(&minor, name, &client, &type);
	g->gss_release_name(&ignored, &name);
	if (GSS_ERROR(major)) {
		gss_problem("the client's name", major, minor, problem, size);
		return -1;
	}
	established = flags;
	return 1;
}

/* p9_verify returns 1 if the client has made the MIC over the message. */
int p9_verify(void *message, size_t message_length, void *mic, size_t mic_length, char *problem, size_t size)
{
	gss_buffer_desc m = {message_length, message}, c = {mic_length, mic};
	OM_uint32 major, minor;

	if (established == 0) {
		snprintf(problem, size, "there is no context");
		return 0;
	}
	major = g->gss_verify_mic(&minor, context, &m, &c, NULL);
	if (major != GSS_S_COMPLETE) {
		gss_problem("the MIC", major, minor, problem, size);
		return 0;
	}
	return 1;
}

void p9_principal(char **name, size_t *length)
{
	*name = client.value;
	*length = client.length;
}

/*
 * p9_delegated writes the credentials that the client has delegated in the format of a
 * cache's file, version 4 (ccache_file_format.html of MIT Kerberos). It returns 1, or 0
 * where there are none, and -1 where they cannot be written. cache is the caller's.
 */
int p9_delegated(void **cache, size_t *length, char *problem, size_t size)
{
	krb5_principal owner = NULL;
	krb5_ccache memory = NULL;
	krb5_cc_cursor at;
	krb5_creds cred;
	krb5_data *data;
	krb5_error_code e;
	OM_uint32 minor;
	FILE *f;
	const char *doing = "the delegated credentials";

	if (delegated == GSS_C_NO_CREDENTIAL)
		return 0;
	*cache = NULL;
	f = open_memstream((char **)cache, length);
	if (f == NULL) {
		snprintf(problem, size, "%s: %m", doing);
		return -1;
	}
	/* A string of GSS has no NUL at its end, but MIT's has. */
	e = k->krb5_parse_name(kerberos, client.value, &owner);
	if (e == 0)
		e = k->krb5_cc_new_unique(kerberos, "MEMORY", NULL, &memory);
	if (e == 0)
		e = k->krb5_cc_initialize(kerberos, memory, owner);
	if (e == 0 && GSS_ERROR(g->gss_krb5_copy_ccache(&minor, delegated, memory)))
		e = (krb5_error_code)minor;
	if (e == 0) {
#define PUT32(n) do { uint32_t v = (n); unsigned char b[4] = {v >> 24, v >> 16, v >> 8, v}; fwrite(b, 1, 4, f); } while (0)
#define PUT(d) do { PUT32((d).length); fwrite((d).data, 1, (d).length, f); } while (0)
		fwrite("\5\4\0\0", 1, 4, f); /* version 4, and a header without fields */
		PUT32((uint32_t)owner->type);
		PUT32((uint32_t)owner->length);
		PUT(owner->realm);
		for (krb5_int32 i = 0; i < owner->length; i++)
			PUT(owner->data[i]);
		e = k->krb5_cc_start_seq_get(kerberos, memory, &at);
	}
	if (e == 0) {
		while ((e = k->krb5_cc_next_cred(kerberos, memory, &at, &cred)) == 0) {
			e = k->krb5_marshal_credentials(kerberos, &cred, &data);
			k->krb5_free_cred_contents(kerberos, &cred);
			if (e != 0)
				break;
			fwrite(data->data, 1, data->length, f);
			k->krb5_free_data(kerberos, data);
		}
		k->krb5_cc_end_seq_get(kerberos, memory, &at);
		if (e == KRB5_CC_END)
			e = 0;
	}
	if (e != 0)
		p9_krb5_problem(k, kerberos, e, doing, problem, size);
	if (memory != NULL)
		k->krb5_cc_destroy(kerberos, memory);
	if (owner != NULL)
		k->krb5_free_principal(kerberos, owner);
	if (fclose(f) != 0 && e == 0) {
		snprintf(problem, size, "%s: %m", doing);
		return -1;
	}
	return e == 0 ? 1 : -1;
}
