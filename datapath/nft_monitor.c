/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/nft.h"
#include "datapath/nft_batch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>

#define BUFFER_SIZE 65536
/* The kernel sends one notification per element of a transaction, ours included. */
#define RECEIVE_BUFFER (8 << 20)

/* The transaction whose messages are being read; its NEWGEN comes last and names the program. */
struct transaction {
	bool ours;
	bool foreign_tables;
};

struct nft_monitor {
	struct mnl_socket *nl;
	uint8_t *buf;
	struct transaction open; /* the kernel may still be telling it when the socket is empty */
};

int nft_monitor_open(struct nft_monitor **ret, struct error *err)
{
	struct nft_monitor *m = xcalloc(1, sizeof(*m));
	int group = NFNLGRP_NFTABLES, code;

	*ret = NULL;
	m->nl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!m->nl || mnl_socket_bind(m->nl, 0, MNL_SOCKET_AUTOPID) < 0 ||
		mnl_socket_setsockopt(m->nl, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0) {
		code = -errno;
		nft_monitor_close(m);
		return error_set(err, code, "netlink", "run as root or with the capability NET_ADMIN",
			"cannot listen to changes of nftables: %s", strerror(-code));
	}
	nft_socket_buffer(mnl_socket_get_fd(m->nl), SO_RCVBUF, RECEIVE_BUFFER);
	m->buf = xmalloc(BUFFER_SIZE);
	*ret = m;
	return 0;
}

int nft_monitor_fd(const struct nft_monitor *m)
{
	return mnl_socket_get_fd(m->nl);
}

void nft_monitor_close(struct nft_monitor *m)
{
	if (!m)
		return;
	if (m->nl)
		mnl_socket_close(m->nl);
	free(m->buf);
	free(m);
}

static void read_generation(const struct nlmsghdr *nlh, struct transaction *t, struct nft_touch *ret)
{
	const struct nlattr *attr;
	const char *name = NULL;
	char who[32];
	uint32_t pid = 0;

	mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) == NFTA_GEN_PROC_PID && !mnl_attr_validate(attr, MNL_TYPE_U32))
			pid = ntohl(mnl_attr_get_u32(attr));
		if (mnl_attr_get_type(attr) == NFTA_GEN_PROC_NAME &&
			!mnl_attr_validate(attr, MNL_TYPE_NUL_STRING))
			name = mnl_attr_get_str(attr);
	}
	ret->ours |= t->ours;
	ret->foreign_tables |= t->foreign_tables;
	if (t->ours && name) {
		snprintf(who, sizeof(who), "%.15s (pid %u)", name, pid);
		actors_add(ret->who, who);
	}
	memset(t, 0, sizeof(*t));
}

static void read_change(const struct nlmsghdr *nlh, struct transaction *t)
{
	const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);
	uint16_t type = nlh->nlmsg_type & 0xff;
	const struct nlattr *attr;
	const char *table = NULL;

	mnl_attr_for_each(attr, nlh, sizeof(*nfg))
	{
		/* The table's name is attribute 1 of every object. */
		if (mnl_attr_get_type(attr) != 1)
			continue;
		if (!mnl_attr_validate(attr, MNL_TYPE_NUL_STRING))
			table = mnl_attr_get_str(attr);
		break;
	}
	if (!table)
		return;
	if (nfg->nfgen_family == NFPROTO_INET && !strcmp(table, RULESET_TABLE))
		t->ours = true;
	else if (type == NFT_MSG_NEWTABLE || type == NFT_MSG_DELTABLE || type == NFT_MSG_NEWCHAIN ||
		 type == NFT_MSG_DELCHAIN)
		t->foreign_tables = true;
}

int nft_monitor_read(struct nft_monitor *m, struct nft_touch *ret, struct error *err)
{
	memset(ret, 0, sizeof(*ret));
	for (;;) {
		ssize_t got = recv(mnl_socket_get_fd(m->nl), m->buf, BUFFER_SIZE, 0);
		const struct nlmsghdr *nlh = (const void *)m->buf;
		int left = (int)got;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return 0;
		if (got < 0 && errno == ENOBUFS) {
			/* Notifications were lost. */
			ret->ours = true;
			ret->foreign_tables = true;
			continue;
		}
		if (got < 0)
			return error_set(err, -errno, "netlink", NULL, "cannot read changes of nftables: %s",
				strerror(errno));
		for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
			if (nlh->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES ||
				mnl_nlmsg_get_payload_len(nlh) < sizeof(struct nfgenmsg) ||
				nft_portid_is_own(nlh->nlmsg_pid))
				continue;
			if ((nlh->nlmsg_type & 0xff) == NFT_MSG_NEWGEN)
				read_generation(nlh, &m->open, ret);
			else
				read_change(nlh, &m->open);
		}
	}
}
