/* A structure with a new field: a single one, an array of them with more places, a list, and a tree. */
#include "kinds.h"

#if VERSION == 1
struct item {
    int id;
    struct item *next;
};
struct node {
    int key;
    struct node *left, *right;
};
#define PLACES 3
#else
struct item {
    struct item *next;
    int id;
    char label[16];
};
struct node {
    struct node *left, *right;
    int depth;
    int key;
};
#define PLACES 5
#endif

struct item single;
struct item places[PLACES];
struct item *list;
struct node *tree;
MVEDSUA_REGISTER(single);
MVEDSUA_REGISTER(places);
MVEDSUA_REGISTER(list);
MVEDSUA_REGISTER(tree);

#if VERSION == 1
static void plant(int key)
{
    struct node **link = &tree;
    while (*link) {
        link = key < (*link)->key ? &(*link)->left : &(*link)->right;
    }
    *link = calloc(1, sizeof **link);
    (*link)->key = key;
}

static void fill(void)
{
    single.id = 1;
    for (int i = 0; i < PLACES; i++) {
        places[i].id = 10 + i;
        struct item *item = calloc(1, sizeof *item);
        *item = (struct item){20 + i, list};
        list = item;
    }
    for (int i = 0; i < 7; i++) {
        plant((i * 5 + 3) % 7);
    }
}
#else
struct item_v1 {
    int id;
    struct item_v1 *next;
};
struct node_v1 {
    int key;
    struct node_v1 *left, *right;
};

static void convert(const struct item_v1 *old, struct item *made)
{
    made->id = old->id;
    snprintf(made->label, sizeof made->label, "item%d", old->id);
}

static int convert_single(const void *old_value, void *new_value)
{
    convert(old_value, new_value);
    return 0;
}
MVEDSUA_TRANSFORM("single", convert_single);

static int convert_places(const void *old_value, void *new_value)
{
    for (int i = 0; i < 3; i++) {
        convert((const struct item_v1 *)old_value + i, (struct item *)new_value + i);
    }
    return 0;
}
MVEDSUA_TRANSFORM("places", convert_places);

static int convert_list(const void *old_value, void *new_value)
{
    struct item **end = new_value;
    for (struct item_v1 *item = *(struct item_v1 *const *)old_value, *next; item; item = next) {
        next = item->next;
        *end = calloc(1, sizeof **end);
        convert(item, *end);
        end = &(*end)->next;
        free(item);
    }
    return 0;
}
MVEDSUA_TRANSFORM("list", convert_list);

static struct node *grow(struct node_v1 *old, int depth)
{
    if (!old) {
        return NULL;
    }
    struct node *made = calloc(1, sizeof *made);
    *made = (struct node){grow(old->left, depth + 1), grow(old->right, depth + 1), depth, old->key};
    free(old);
    return made;
}

static int convert_tree(const void *old_value, void *new_value)
{
    *(struct node **)new_value = grow(*(struct node_v1 *const *)old_value, 0);
    return 0;
}
MVEDSUA_TRANSFORM("tree", convert_tree);
#endif

static void show_item(const struct item *item)
{
#if VERSION == 1
    printf("%d ", item->id);
#else
    printf("%d:%s ", item->id, item->label);
#endif
}

static void show_tree(const struct node *node)
{
    if (node) {
        show_tree(node->left);
#if VERSION == 1
        printf("%d ", node->key);
#else
        printf("%d@%d ", node->key, node->depth);
#endif
        show_tree(node->right);
    }
}

int mvedsua_main(int argc, char **argv)
{
    (void)argc, (void)argv;
#if VERSION == 1
    fill();
#endif
    for (;;) {
        next_line("loop");
        show_item(&single);
        for (int i = 0; i < PLACES; i++) {
            show_item(&places[i]);
        }
        for (const struct item *item = list; item; item = item->next) {
            show_item(item);
        }
        show_tree(tree);
        SAY(".");
    }
}
