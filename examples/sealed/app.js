// The door: a Fastify application where one logs in. The shop beside it, app.py, shares its sessions.
//
//     npm install fastify@5 @fastify/secure-session@8
//     export SESSION_KEY="$(filesession genkey)"
//     node examples/sealed/app.js &
//     uvicorn app:app --app-dir examples/sealed
//
// Then log in at http://localhost:3000 and visit http://localhost:8000. Both have the key,
// and the cookie's name and path in common.
'use strict'

const fastify = require('fastify')()

fastify.register(require('@fastify/secure-session'), {
  key: process.env.SESSION_KEY,
  cookieName: 'sid',
  cookie: { path: '/', secure: 'auto' }
})

fastify.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' },
  (request, body, done) => done(null, Object.fromEntries(new URLSearchParams(body))))

const escape = (text) => String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`)

fastify.get('/', (request, reply) => {
  const user = request.session.get('user')
  const cart = request.session.get('cart') || []
  reply.type('text/html').send(user
    ? `<p>Welcome, ${escape(user)}: ${cart.length} in your cart, at the shop next door.</p>`
    : '<form method="post" action="/login"><input name="name" required><button>Log in</button></form>')
})

fastify.post('/login', (request, reply) => {
  request.session.regenerate()
  request.session.set('user', request.body.name)
  reply.redirect('/', 303)
})

fastify.listen({ port: Number(process.env.PORT || 3000), host: '127.0.0.1' }).then(() => {
  console.log(`listening ${fastify.server.address().port}`)
})
