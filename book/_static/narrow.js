// What is too wide for its column fades at the edge where more of it is. A table far too wide for
// a phone is shown as a list: what its row says stands below the row's first cell.
const BOXES = '.bd-article :is(pre, table.table, div.math mjx-container, .cell_output .output)'
const FAR_TOO_WIDE = 1.3
const phone = matchMedia('(max-width: 600px)')
const tablet = matchMedia('(max-width: 1150px)')

function fade(box) {
  const hidden = box.scrollWidth - box.clientWidth
  box.classList.toggle('more-left', hidden > 1 && box.scrollLeft > 1)
  box.classList.toggle('more-right', hidden > 1 && box.scrollLeft < hidden - 1)
}

function list(table) {
  table.classList.remove('listed')
  const isTooWide = table.scrollWidth > FAR_TOO_WIDE * table.clientWidth
  const isListed = table.matches('.wide') ? tablet.matches : phone.matches && isTooWide
  table.classList.toggle('listed', isListed)
}

function repeatHeads(table) {
  const heads = [...table.querySelectorAll('thead th')].map(head => head.textContent.trim())
  for (const row of table.querySelectorAll('tbody tr'))
    [...row.cells].forEach((cell, i) => {
      if (cell.textContent.trim()) cell.dataset.head = heads[i] ?? ''
    })
}

addEventListener('DOMContentLoaded', async () => {
  const tables = document.querySelectorAll('.bd-article table.table:not(.autosummary)')
  tables.forEach(repeatHeads)
  document.querySelectorAll('table.wide').forEach(list)
  await window.MathJax?.startup?.promise  // only then is a formula as wide as it stays
  const listAll = () => tables.forEach(list)
  listAll()
  for (const query of [phone, tablet]) query.addEventListener('change', listAll)
  const resized = new ResizeObserver(entries => entries.forEach(entry => fade(entry.target)))
  for (const box of document.querySelectorAll(BOXES)) {
    resized.observe(box)
    box.addEventListener('scroll', () => fade(box), {passive: true})
  }
})
