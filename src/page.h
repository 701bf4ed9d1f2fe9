/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PAGE_H
#define REDIAL_PAGE_H

#include <stdint.h>

/* The page for people: src/page.html, part of the program. */
extern const char page_html[];
extern const uint32_t page_html_size;

#endif
